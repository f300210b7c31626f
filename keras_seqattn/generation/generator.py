"""Generation with any decoder: text or token ids in, text or token ids out."""

import contextlib
import dataclasses

import numpy as np

from keras_seqattn.arguments import flag, integer
from keras_seqattn.errors import InputError
from keras_seqattn.generation.beam import beam_search
from keras_seqattn.generation.loop import decode
from keras_seqattn.generation.pool import DecoderPool
from keras_seqattn.generation.prompts import (
    check_token_ids,
    prepare_features,
    prepare_prompts,
)
from keras_seqattn.generation.room import check_room
from keras_seqattn.generation.settings import GenerationConfig, check_names
from keras_seqattn.generation.stopping import TextStream

# Number of the last tokens of the prompt that are decoded together with the first new token. They
# decide, for example, whether it starts with a space.
_CONTEXT = 8
# Token ids that must be in the vocabulary. An eos_token_id above the vocabulary, which some files
# have, is no error: the token never comes.
_SPECIAL_TOKENS = (
    *("pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
)


class Generator:
    """Generates with a decoder, its tokenizer and the default settings of its checkpoint.

    Args:
        decoder: follows the protocol of `keras_seqattn.generation`. A decoder holds one generation
            at a time; with a `DecoderPool` of decoders, any number may run at once. With an
            encoder-decoder, the prompts are encoded, and the answer starts with
            decoder_start_token_id.
        tokenizer: None, or an object with `encode(text, special_tokens) -> list of int` and
            `decode(ids) -> str`, which leaves out special tokens.
        defaults: dict of the generation settings of the checkpoint.
        context_length: None, or int, the maximum number of tokens of prompt and answer together
            (with an encoder-decoder, of start token and answer). A streaming decoder has no limit.
    """

    def __init__(self, decoder, *, tokenizer=None, defaults=None, context_length=None):
        if isinstance(decoder, DecoderPool):
            self.decoder, self._lend = decoder.example, decoder.lend
        else:
            self.decoder, self._lend = decoder, lambda: contextlib.nullcontext(decoder)
        if not all(hasattr(self.decoder, name) for name in ("start", "vocabulary_size")):
            raise InputError("the decoder must follow the protocol of keras_seqattn.generation")
        if tokenizer is not None and not all(hasattr(tokenizer, x) for x in ("encode", "decode")):
            raise InputError("the tokenizer must have encode and decode")
        if defaults is not None and not isinstance(defaults, dict):
            raise InputError(f"defaults must be a dict, not {type(defaults).__name__}")
        if context_length is not None:
            integer(context_length, "context_length")
        self.tokenizer = tokenizer
        self.defaults = defaults or {}
        streams = getattr(self.decoder, "is_streaming", False)
        self.context_length = None if streams else context_length

    def generate(
        self, inputs, attention_mask=None, *, special_tokens=True, as_text=False, **settings
    ):
        """Return the answers to the prompts. The prompts are not repeated.

        Args:
            inputs: a text, a list of texts, token ids as a list, a list of lists, or an integer
                array (t,) or (b, t). For a decoder with `source_features` f: float (b, t, f).
            attention_mask: int (b, t) with an array, 1 = real token; the padding is on the left
                (for an encoder-decoder, on either side).
            special_tokens: bool, whether the tokenizer adds its special tokens to texts.
            as_text: bool, return text even if the prompts are ids.
            **settings: names of `GenerationConfig`.

        Returns:
            A str for a text and a list of str for texts, without stop strings and special tokens.
            For ids, the new ids in the form of the prompts, with the token that ended the row. In
            an array, shorter rows are filled with pad_token_id.

        Raises:
            InputError: prompts or settings are not valid.
        """
        task = self._prepare(inputs, attention_mask, special_tokens, settings, as_text)
        if task.config.num_beams > 1:
            return self._finish(task, *self._search(task))
        tokens, active = [], []
        for step, running in self._decode(task):
            tokens.append(step)
            active.append(running)
        ids, lengths = np.stack(tokens, axis=1), np.sum(active, axis=0)
        return self._finish(task, ids, lengths)

    def stream(self, inputs, attention_mask=None, *, special_tokens=True, **settings):
        """Yield the answers while they are generated. The arguments are those of `generate`.

        Yields:
            For a text, the next piece of text. A piece never holds a part of a character, or text
            that may become a stop string. For one row of ids, the next id. For a batch, a list of
            pieces, or int64 (b,).
        """
        task = self._prepare(inputs, attention_mask, special_tokens, settings)
        if task.config.num_beams > 1:
            raise InputError(
                "num_beams above 1 cannot stream, because the best beam is known only at the end: "
                "use generate"
            )
        return self._stream(task)

    def _stream(self, task):
        is_text, single = task.prompts.kind == "text", task.prompts.single
        for tokens, _ in self._decode(task):
            if not is_text:
                yield int(tokens[0]) if single else tokens
            elif any(task.texts.pieces):
                yield task.texts.pieces[0] if single else list(task.texts.pieces)
        if is_text:
            rest = task.texts.finish()
            if any(rest):
                yield rest[0] if single else rest

    def _prepare(self, inputs, attention_mask, special_tokens, settings, as_text=False):
        check_names(settings)
        flag(special_tokens, "special_tokens")
        flag(as_text, "as_text")
        encodes = hasattr(self.decoder, "encode")
        config = GenerationConfig.from_settings(self.defaults, has_encoder=encodes, **settings)
        config = self._possible(config)
        tokenizer = self.tokenizer
        if tokenizer is None and (config.stop_strings or as_text):
            asked = "stop_strings" if config.stop_strings else "as_text"
            raise InputError(f"{asked} needs a tokenizer, but the model has none")
        prompts = self._prompts(inputs, attention_mask, special_tokens, config, encodes)
        if as_text:
            prompts = dataclasses.replace(prompts, kind="text")
        begin, source = (prompts.input_ids, prompts.attention_mask), None
        if encodes:
            begin, source = _start_tokens(config, len(prompts.input_ids)), begin
        steps = config.new_tokens(begin[0].shape[1], self.context_length)
        source_length = 0 if source is None else source[0].shape[1]
        check_room(self.decoder, *begin[0].shape, config, steps, source_length)
        texts = None
        if prompts.kind == "text" or config.stop_strings:
            contexts = [()] * len(begin[0]) if encodes else prompts.rows()
            texts = _Texts(tokenizer.decode, contexts, config.stop_strings)
        return _Task(prompts, begin, source, config, steps, texts)

    def _prompts(self, inputs, attention_mask, special_tokens, config, encodes):
        features, tokenizer = getattr(self.decoder, "source_features", None), self.tokenizer
        if features is not None:
            return prepare_features(inputs, attention_mask, features)
        return prepare_prompts(
            inputs,
            attention_mask,
            encode=tokenizer and (lambda text: tokenizer.encode(text, special_tokens)),
            vocabulary_size=(
                self.decoder.source_vocabulary_size if encodes else self.decoder.vocabulary_size
            ),
            padding=config.padding,
            side="right" if encodes else "left",
        )

    def _possible(self, config):
        """The settings without eos_token_ids that do not exist; InputError for other such ids."""
        size = self.decoder.vocabulary_size
        ends = tuple(token for token in config.eos_token_id if token < size)
        config = dataclasses.replace(config, eos_token_id=ends)
        for name in _SPECIAL_TOKENS:
            value = getattr(config, name)
            if value is not None:
                check_token_ids(np.atleast_1d(np.array(value, np.int64)), size, name)
        words = [token for word in config.bad_words_ids for token in word]
        check_token_ids(np.array(words, np.int64), size, "bad_words_ids")
        return config

    def _decode(self, task):
        with self._lend() as decoder:
            yield from decode(
                decoder, *task.begin, task.config, task.steps, task.texts, task.source
            )

    def _search(self, task):
        stops = task.config.stop_strings

        def has_stop_string(rows):
            texts = map(self.tokenizer.decode, rows.tolist())
            return np.array([any(stop in text for stop in stops) for text in texts])

        with self._lend() as decoder:
            ids, lengths = beam_search(
                decoder,
                *task.begin,
                task.config,
                task.steps,
                has_stop_string if stops else None,
                task.source,
            )
        if task.prompts.kind == "text":
            for step in range(ids.shape[1]):
                task.texts(ids[:, step], step < lengths)
        return ids, lengths

    def _finish(self, task, ids, lengths):
        if task.prompts.kind == "text":
            task.texts.finish()
            answers = ["".join(pieces) for pieces in task.texts.all_pieces]
        elif task.prompts.kind == "list":
            answers = [row[:n].tolist() for row, n in zip(ids, lengths, strict=True)]
        else:
            answers = ids
        return answers[0] if task.prompts.single else answers


@dataclasses.dataclass(frozen=True)
class _Task:
    """What a call asks for. `begin` and `source` are pairs of ids and mask, int64 (b, t)."""

    prompts: object
    begin: tuple
    source: tuple | None
    config: GenerationConfig
    steps: int
    texts: object


def _start_tokens(config, rows):
    start = config.decoder_start_token_id
    if start is None:
        raise InputError(
            "an encoder-decoder needs decoder_start_token_id, and neither generation_config.json "
            "nor config.json names it: pass it as a setting"
        )
    return np.full((rows, 1), start, np.int64), np.ones((rows, 1), np.int64)


class _Texts:
    """The texts of a batch while they grow, one `TextStream` per row."""

    def __init__(self, decode, contexts, stop_strings):
        self._streams = [TextStream(decode, ids[-_CONTEXT:], stop_strings) for ids in contexts]
        self.all_pieces = [[] for _ in self._streams]
        self.pieces = [""] * len(self._streams)

    def __call__(self, tokens, active):
        """Add the tokens of a step. Return bool (b,), the rows in which a stop string occurred."""
        rows = zip(self._streams, tokens.tolist(), active.tolist(), strict=True)
        self._add([stream.push(token) if goes_on else "" for stream, token, goes_on in rows])
        return np.array([stream.stopped for stream in self._streams])

    def finish(self):
        """Add and return the text that was held back."""
        self._add([stream.finish() for stream in self._streams])
        return self.pieces

    def _add(self, pieces):
        self.pieces = pieces
        for texts, piece in zip(self.all_pieces, pieces, strict=True):
            texts.append(piece)
