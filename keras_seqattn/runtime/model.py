"""`keras_seqattn.runtime.load`: opens a bundle and makes it ready to run."""

import threading

import numpy as np

from keras_seqattn import arguments
from keras_seqattn.arguments import choice, flag, integer
from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.files import read_settled
from keras_seqattn.generation.checkpoint import checkpoint_defaults, position_limit
from keras_seqattn.generation.generator import Generator
from keras_seqattn.generation.pool import DecoderPool
from keras_seqattn.generation.processors import softmax
from keras_seqattn.generation.settings import check_names
from keras_seqattn.runtime.batches import length_batches
from keras_seqattn.runtime.bundle import Bundle, open_bundle
from keras_seqattn.runtime.chat import ChatTemplate
from keras_seqattn.runtime.config import label_names, max_sequence_length
from keras_seqattn.runtime.decoder import OrtDecoder
from keras_seqattn.runtime.encoder import (
    WORD_STRATEGIES,
    Encoder,
    class_probabilities,
    group_entities,
    words_of,
)
from keras_seqattn.runtime.encoder_decoder import OrtEncoderDecoder
from keras_seqattn.runtime.feeds import feeds_of
from keras_seqattn.runtime.pooling import Pooling, normalize
from keras_seqattn.runtime.rehearsal import rehearse
from keras_seqattn.runtime.session import check_session_options, create_session
from keras_seqattn.runtime.signatures import task_of
from keras_seqattn.runtime.text_tasks import summarization, translation
from keras_seqattn.runtime.tokenizer import Tokenizer
from keras_seqattn.runtime.values import static_size
from keras_seqattn.tasks import (
    CAUSAL_LM,
    EMBEDDING,
    SEQ2SEQ_LM,
    SEQUENCE_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
)


def load(path, providers=None, *, check=False, threads=None):
    """Open a bundle.

    Args:
        path: the folder of the bundle.
        providers: onnxruntime execution providers. None takes CUDA if it is available, else CPU.
        check: bool, for a bundle from a stranger. It compares the SHA-256 of every file that is
            read with parity.json, and uses everything once (tokenizer, generation settings, chat
            template, labels, pooling, two tokens of an answer), so that errors appear here. Without
            it, files up to 64 MiB are hashed, and only the size of larger files is compared. In
            both cases no code of the bundle runs, and no file outside its folder is opened.
        threads: int, number of threads of one operator. None lets onnxruntime choose.

    Returns:
        BundleModel.

    Raises:
        BundleError: the bundle is incomplete, inconsistent or unsafe; with `check`, also if
            something in it cannot be used.
        InputError: an argument has a wrong type, or a provider is not available.

    Example:
        >>> model = keras_seqattn.runtime.load("smollm2-int4")
        >>> model.chat("What is the capital of France?", max_new_tokens=32)
    """
    path = arguments.path(path, "the bundle")
    return read_settled(path, lambda: _load(path, providers, check, threads))


def _load(path, providers, check, threads):
    flag(check, "check")
    options = check_session_options(providers, threads)
    bundle = open_bundle(path, check)
    sessions = [
        # If a process has several sessions, only the last one may spin: it works the most.
        create_session(bundle.path / name, *options, name == bundle.graphs[-1])
        for name in bundle.graphs
    ]
    model = BundleModel(bundle, *sessions)
    if check:
        rehearse(model)
    return model


class BundleModel:
    """A bundle and its sessions. The `task` decides which methods can be called.

    Threads may share it: its content does not change, and each generation has its own caches and
    buffers, also if several streams are read in turns. After a fork, the child process must load
    its own.

    Args:
        bundle: Bundle.
        *sessions: Session of each of its graphs: one, or those of an encoder and a decoder.

    Attributes:
        session: the first session.
        task: str, such as "causal_lm".
        longest: None, or int, the maximum number of tokens of prompt and answer together.
        longest_source: None, or int, the maximum number of tokens for an encoder.
    """

    def __init__(self, bundle, *sessions):
        if not isinstance(bundle, Bundle) or not sessions:
            raise InputError("open a bundle with keras_seqattn.runtime.load(folder)")
        self.bundle = bundle
        self.sessions = sessions
        self.session = sessions[0]
        self.config = bundle.config
        self.metadata = dict(self.session.get_modelmeta().custom_metadata_map)
        self._task = task_of(self.metadata, self.config, [session.ports for session in sessions])
        self.task = self._task.name
        self.longest = position_limit(self.config, ports=sessions[-1].ports)
        self.longest_source = position_limit(self.config, "encoder", self.session.ports)
        self.tokenizer = Tokenizer(bundle.assets) if "tokenizer.json" in bundle.assets else None
        # A part is made when it is first used. One part may need another one.
        self._parts, self._lock = {}, threading.RLock()

    def __reduce__(self):
        raise TypeError(
            "a loaded bundle cannot be pickled or copied, nor sent to another process: load it "
            f"there, with keras_seqattn.runtime.load({str(self.bundle.path)!r})"
        )

    def generate(self, inputs, attention_mask=None, **settings):
        """Return the answers to the prompts. The prompts are not repeated.

        Args:
            inputs: a text, a list of texts, token ids as a list, a list of lists, or an integer
                array (t,) or (b, t). For an encoder that reads features: float (t, f) or (b, t, f).
            attention_mask: int (b, t) with an array, 1 = real token; the padding is on the left
                (for an encoder-decoder, on either side).
            **settings: names of `keras_seqattn.generation.GenerationConfig`. They have priority
                over the generation_config.json of the bundle.

        Returns:
            str or list of str for texts. For ids, the new token ids in the form of the prompts.

        Raises:
            InputError: prompts or settings are not valid, or the bundle has another task.
        """
        return self._generator().generate(inputs, attention_mask, **settings)

    def stream(self, inputs, attention_mask=None, **settings):
        """Yield the results of `generate` in pieces while they are made: text or token ids."""
        return self._generator("stream").stream(inputs, attention_mask, **settings)

    def translate(
        self, texts, *, source=None, target=None, batch_size=16, truncate=True, **settings
    ):
        """Translate texts.

        Args:
            texts: a text or a list of texts.
            source, target: languages, if the checkpoint has several, with its own names ("en", "de"
                in task_specific_params of T5; "de_DE" among the tokens of mBART).
            batch_size: int, number of texts per run.
            truncate: bool, cut texts that are too long. With False they are an error.
            **settings: as for `generate`. They have priority over the settings of the checkpoint
                for this task.

        Returns:
            str for a text, list of str for a list.

        Raises:
            InputError: the checkpoint does not know the languages, or an input is not valid.
        """
        self._require("translate", SEQ2SEQ_LM)
        for name, language in (("source", source), ("target", target)):
            if language is not None:
                arguments.text(language, name)
        prefix, defaults = translation(self.config, self._text("translate"), source, target)
        return self._rewrite(texts, prefix, defaults, batch_size, truncate, settings)

    def summarize(self, texts, *, batch_size=16, truncate=True, **settings):
        """Summarize texts. Arguments and results are those of `translate`."""
        self._require("summarize", SEQ2SEQ_LM)
        self._text("summarize")
        prefix, defaults = summarization(self.config)
        return self._rewrite(texts, prefix, defaults, batch_size, truncate, settings)

    def chat(self, messages, *, stream=False, **settings):
        """Answer a conversation with the chat template of the checkpoint.

        Args:
            messages: list of {"role": "system"|"user"|"assistant", "content": str}, or a str.
            stream: bool, return an iterator over pieces of the answer, and not the whole answer.
            **settings: as for `generate`.

        Returns:
            str, the answer; or an iterator of str.
        """
        self._require("chat", CAUSAL_LM)
        generator = self._generator()
        flag(stream, "stream")
        check_names(settings)
        tokenizer = self._text("chat")
        template = self._part("chat", lambda: ChatTemplate.from_assets(self._assets, tokenizer))
        run = generator.stream if stream else generator.generate
        # The template itself writes the special tokens.
        return run(template.render(messages), special_tokens=False, **settings)

    def embed(self, texts, *, batch_size=32, normalized=None, truncate=True):
        """Turn texts into vectors, with the pooling that the checkpoint's files name.

        Args:
            texts: a text or a list of texts.
            batch_size: int, number of texts per run.
            normalized: bool, scale vectors to length 1. None takes the setting of the checkpoint.
            truncate: bool, cut texts that are too long. With False they are an error.

        Returns:
            float32 (m,) for a text, (b, m) for a list.
        """
        self._require("embed", EMBEDDING)
        if normalized is not None:
            flag(normalized, "normalized")
        pooling = self._part("pooling", lambda: Pooling.from_assets(self._assets))
        items = arguments.texts(texts)
        vectors = [None] * len(items)
        for indices, _, mask, outputs in self._encoder().batches(items, None, batch_size, truncate):
            pooled = pooling(outputs["hidden_states"].astype(np.float32, copy=False), mask)
            for i, vector in zip(indices, pooled, strict=True):
                vectors[i] = vector
        vectors = np.stack(vectors)
        if normalized and not pooling.normalize:
            vectors = normalize(vectors)
        return vectors[0] if isinstance(texts, str) else vectors

    def classify(self, texts, pairs=None, *, top_k=1, batch_size=32, truncate=True):
        """Label whole texts.

        Args:
            texts: a text or a list of texts.
            pairs: None, or a text or list of texts, the second text of each pair.
            top_k: int, number of labels per text, best first. None gives all.
            batch_size: int, number of texts per run.
            truncate: bool, cut texts that are too long. With False they are an error.

        Returns:
            For each text, a list of {"label": str, "score": float}; with top_k 1, only that dict.
        """
        self._require("classify", SEQUENCE_CLASSIFICATION)
        if top_k is not None:
            integer(top_k, "top_k", least=1)
        items = arguments.texts(texts)
        pairs = None if pairs is None else arguments.texts(pairs, "pairs")
        if pairs is not None and len(pairs) != len(items):
            raise InputError(f"there are {len(items)} texts and {len(pairs)} pairs")
        labels, results = self._labels(), [None] * len(items)
        for indices, _, _, outputs in self._encoder().batches(items, pairs, batch_size, truncate):
            scores = class_probabilities(
                outputs["logits"].astype(np.float32), self.config.get("problem_type")
            )
            for i, row in zip(indices, scores, strict=True):
                best = [{"label": labels[j], "score": float(row[j])} for j in np.argsort(-row)]
                results[i] = best[0] if top_k == 1 else best[:top_k]
        return results[0] if isinstance(texts, str) else results

    def tag(self, texts, *, aggregation="first", batch_size=32, truncate=True):
        """Find entities in texts.

        Args:
            texts: a text or a list of texts.
            aggregation: "first", "average" or "max": how the pieces of a word are combined.
            batch_size: int, number of texts per run.
            truncate: bool, cut texts that are too long. With False they are an error.

        Returns:
            For each text, a list of {"entity", "text", "start", "end", "score"}. start and end are
            positions of characters in the text.
        """
        self._require("tag", TOKEN_CLASSIFICATION)
        choice(aggregation, "aggregation", WORD_STRATEGIES)
        items, labels = arguments.texts(texts), self._labels()
        results = [None] * len(items)
        for indices, encodings, _, outputs in self._encoder().batches(
            items, None, batch_size, truncate
        ):
            scores = softmax(outputs["logits"].astype(np.float32))
            for i, encoding, row in zip(indices, encodings, scores, strict=True):
                words = words_of(encoding, row, aggregation)
                results[i] = group_entities(items[i], words, labels)
        return results[0] if isinstance(texts, str) else results

    def run(self, inputs=None, /, **named):
        """Run the graph once.

        Args:
            inputs: dict of name -> array for every input of the graph. Keywords can be used too.

        Returns:
            dict of name -> array for every output.

        Raises:
            InputError: an input is missing, unknown or empty, or has a wrong type, size or value.
        """
        self.session.check_process()
        if len(self.sessions) > 1:
            raise InputError(
                f"run needs one graph, and this bundle has {', '.join(self.bundle.graphs)}"
            )
        if inputs is None or (named and isinstance(inputs, dict)):
            inputs = (inputs or {}) | named
        feeds = feeds_of(self.session.ports, inputs, self.config.get("vocab_size"))
        outputs = self.session.run(None, feeds)
        names = (port.name for port in self.session.ports.outputs)
        return dict(zip(names, outputs, strict=True))

    @property
    def generation_defaults(self):
        """dict of the generation settings of the checkpoint."""
        return checkpoint_defaults(self.config, self.bundle.generation_config)

    @property
    def _assets(self):
        return self.bundle.assets

    def _part(self, name, make):
        with self._lock:
            if name not in self._parts:
                self._parts[name] = make()
            return self._parts[name]

    def _require(self, method, *tasks):
        self.session.check_process()
        if self._task not in tasks:
            raise InputError(
                f"{method} needs a bundle of task {' or '.join(task.name for task in tasks)}, and "
                f"the task of this one is {self.task}"
            )

    def _text(self, method):
        if self.tokenizer is None:
            raise BundleError(f"{method} needs text, and this bundle has no tokenizer.json")
        return self.tokenizer

    def _generator(self, method="generate"):
        self._require(method, CAUSAL_LM, SEQ2SEQ_LM)
        return self._part("generator", self._make_generator)

    def _make_generator(self, **defaults):
        return Generator(
            self._part("decoders", lambda: DecoderPool(self._make_decoder)),
            tokenizer=self.tokenizer,
            defaults={**self.generation_defaults, **defaults},
            context_length=self.longest,
        )

    def _make_decoder(self):
        vocabulary = self.config["vocab_size"]
        if self._task.reads_source:
            return OrtEncoderDecoder(*self.sessions, vocabulary, self.longest_source)
        shared = self.metadata.get("keras_seqattn.shared_cache") == "true"
        return OrtDecoder(self.session, vocabulary, shared)

    def _rewrite(self, texts, prefix, defaults, batch_size, truncate, settings):
        """Answer each text. Settings of the call have priority over those of the task."""
        check_names(settings)
        generator = self._make_generator(**defaults)
        items = arguments.texts(texts)
        answers = [None] * len(items)
        batches = length_batches(
            self.tokenizer,
            [prefix + item for item in items],
            max_length=self._max_length(),
            batch_size=batch_size,
            truncate=truncate,
        )
        for indices, encodings in batches:
            rows = [encoding.ids for encoding in encodings]
            got = generator.generate(rows, as_text=True, **settings)
            for i, answer in zip(indices, got, strict=True):
                answers[i] = answer
        return answers[0] if isinstance(texts, str) else answers

    def _encoder(self):
        return self._part("encoder", self._make_encoder)

    def _make_encoder(self):
        return Encoder(self.session, self._text(f"task {self.task}"), self._max_length())

    def _max_length(self):
        """The maximum number of tokens of a text by the files of the checkpoint, or None."""
        limits = max_sequence_length(self._assets), self.tokenizer.max_length, self.longest_source
        return min((limit for limit in limits if limit is not None), default=None)

    def _labels(self):
        return label_names(self.config, static_size(self.session.ports.given("logits"), -1))
