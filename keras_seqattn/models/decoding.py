"""Driving Keras decoders: caches of fixed size, and steps that are compiled once."""

import math

import numpy as np
from keras import ops

from keras_seqattn.errors import InputError
from keras_seqattn.generation.prompts import first_tokens
from keras_seqattn.generation.steps import (
    LARGEST_CHUNK,
    is_cache,
    is_streaming,
    output_for,
    varies_per_beam,
)
from keras_seqattn.models.compiled import compiled
from keras_seqattn.models.registry import get_family

_SMALLEST_BUCKET = 16


class KerasDecoder:
    """A causal language model as `keras_seqattn.generation` drives it.

    Prompts are padded to powers of two, so that the step is compiled for few lengths: one for the
    prompt's, and one for single tokens. Padding would become part of a state, so models with states
    read prompts in pieces whose lengths are powers of two.

    Args:
        model: a `SequenceModel` for causal_lm.

    Attributes:
        vocabulary_size: number of tokens v.
        is_streaming: whether no past grows, so that texts may have any length.
    """

    def __init__(self, model):
        self.vocabulary_size = model.output["logits"].shape[-1]
        step = model.step_model(static=True)
        self.is_streaming = is_streaming(step.input)
        self._positions = get_family(model.family).longest(model.settings, "decoder")
        self._pasts = {name: x for name, x in step.input.items() if varies_per_beam(name)}
        self._has_states = not all(map(is_cache, self._pasts))
        self._step = _compiled_step(step, self._pasts)

    def room(self, rows, prompt_length, max_length, sources=0, source_length=0):
        """int, the least bytes that a generation of so many rows takes; `sources` are of others."""
        read = min(prompt_length, LARGEST_CHUNK) if self._has_states else prompt_length
        return (
            _past_bytes(self._pasts, rows, _bucket(max_length))
            + 4 * rows * read * self.vocabulary_size
        )

    def start(self, batch_size, max_length):
        """Forget the past and make room.

        Args:
            batch_size: number of rows b.
            max_length: largest number of tokens of a row, the prompt and its padding included.

        Raises:
            InputError: the model has fewer positions.
        """
        if not self.is_streaming:
            _check_length(max_length, self._positions)
        self._slots = _bucket(max_length)
        self._used = 0
        self._past = _empty(self._pasts, batch_size, self._slots)

    def __call__(self, input_ids, attention_mask):
        """The logits that follow the given tokens.

        Args:
            input_ids: int64 (b, t), the tokens after those of the earlier calls.
            attention_mask: int64 (b, total), over all tokens so far; 1 = real.

        Returns:
            float32 (b, v), for the last position.

        Raises:
            InputError: the tokens do not fit the room that `start` made.
        """
        before, length = self._used, input_ids.shape[1]
        if not self.is_streaming:
            _check_room(before + length, self._slots)
        for start, end in _pieces(length) if self._has_states else [(0, length)]:
            logits = self._read(input_ids[:, start:end], attention_mask[:, : before + end])
        return _as_float32(logits)

    def _read(self, input_ids, attention_mask):
        length = width = input_ids.shape[1]
        if self.is_streaming:
            fed = {"attention_mask": _integers(attention_mask[:, -length:])}
        else:
            fed = {"attention_mask": _padded(attention_mask, self._slots)}
            fed["cache_position"] = _integers([self._used])
        if length > 1 and not self._has_states:
            width = min(_bucket(length), self._slots - self._used)
        fed["input_ids"] = _padded(input_ids, width)
        logits, self._past = self._step(self._past, fed, _integers(length - 1))
        self._used += length
        return logits

    def reorder(self, rows):
        """Make row i of the past a copy of row `rows[i]`, as beam search asks.

        Args:
            rows: int (b,).
        """
        self._past = _reordered(self._past, rows)


class KerasEncoderDecoder:
    """A sequence-to-sequence model as `keras_seqattn.generation` drives it.

    The source is encoded once, padded to a power of two (where the family has a `source_multiple`,
    to a multiple of that); its keys and values (or, of recurrent families, its states
    and memory) are computed with it. Beams share them.

    Args:
        model: a `SequenceModel` for seq2seq_lm.

    Attributes:
        vocabulary_size: number of tokens v that can be generated.
        source_vocabulary_size: number of tokens of the source.
    """

    def __init__(self, model):
        self.vocabulary_size = model.output["logits"].shape[-1]
        self.source_vocabulary_size = model.config["vocab_size"]
        family, settings = get_family(model.family), model.settings
        self._positions = family.longest(settings, "decoder")
        self._source_positions = family.longest(settings, "encoder")
        self._source_multiple = family.source_multiple(settings)
        encoder, step = model.encoder_model(static=True), model.step_model(static=True)
        self._has_global_tokens = "global_attention_mask" in encoder.input
        self._inputs = list(step.input)
        self._carried = [name for name in self._inputs if varies_per_beam(name)]
        self._caches = {n: step.input[n] for n in self._carried if is_cache(n)}
        self._encode = compiled(encoder)
        self._step = _compiled_step(step, self._carried)

    def room(self, rows, prompt_length, max_length, sources, source_length):
        """int, the least bytes that a generation takes: `rows` are the beams of all sources."""
        past = _past_bytes(self._caches, rows, _bucket(max_length))
        is_square = self._caches and not self._source_positions
        # Attention over a source compares each of its tokens with each.
        return past + (4 * sources * source_length**2 if is_square else 0)

    def encode(self, input_ids, attention_mask):
        """Read the sources.

        Args:
            input_ids: int64 (b, s), padded on the right.
            attention_mask: int64 (b, s), 1 = real token.

        Raises:
            InputError: they are longer than the model's positions.
        """
        length = input_ids.shape[1]
        _check_length(length, self._source_positions)
        width = self._source_width(length)
        mask = _padded(attention_mask, width)
        fed = {"input_ids": _padded(input_ids, width), "attention_mask": mask}
        if self._has_global_tokens:
            fed["global_attention_mask"] = _padded(first_tokens(attention_mask), width)
        outputs = self._encode({}, fed) | {"encoder_attention_mask": mask}
        self._sources = len(input_ids)
        self._encoded = {
            name: outputs[output_for(name)] for name in self._inputs if output_for(name) in outputs
        }

    def _source_width(self, length):
        """What sources are padded to: few lengths, for few compilations."""
        size = self._source_multiple
        width = _bucket(length) if size is None else -(-length // size) * size
        return min(width, self._source_positions or width)

    def start(self, batch_size, max_length):
        """Begin to decode what was encoded.

        Args:
            batch_size: number of rows b, a multiple of the sources: their beams.
            max_length: largest number of tokens of a row, the start token included.

        Raises:
            InputError: the model has fewer positions.
        """
        _check_length(max_length, self._positions)
        self._slots = _bucket(max_length)
        self._used = 0
        beams = batch_size // self._sources
        # A copy even for one beam: what is carried may be overwritten.
        values = {name: ops.repeat(x, beams, axis=0) for name, x in self._encoded.items()}
        self._past = _empty(self._caches, batch_size, self._slots)
        self._past |= {name: values.pop(name) for name in self._carried if name in values}
        self._fixed = values

    def __call__(self, input_ids, attention_mask):
        """The logits that follow the given tokens.

        Args:
            input_ids: int64 (b, t), the tokens after those of the earlier calls, none of padding.
            attention_mask: int64 (b, total) of ones, over all tokens so far.

        Returns:
            float32 (b, v), for the last position.

        Raises:
            InputError: the tokens do not fit the room that `start` made.
        """
        length = input_ids.shape[1]
        _check_room(self._used + length, self._slots)
        fed = {"input_ids": _integers(input_ids), **self._fixed}
        if "cache_position" in self._inputs:
            fed["cache_position"] = _integers([self._used])
        logits, self._past = self._step(self._past, fed, _integers(length - 1))
        self._used += length
        return _as_float32(logits)

    def reorder(self, rows):
        """Let row i go on from the past of row `rows[i]`, a beam of the same source.

        Args:
            rows: int (b,).
        """
        self._past = _reordered(self._past, rows)


def _compiled_step(step, carried):
    """The step as `(carried, fed, last int) -> (logits (b, v) at `last`, the next carried)`."""

    def finish(outputs, last):
        logits = ops.take(outputs["logits"], last, axis=1)
        return logits, {name: outputs[output_for(name)] for name in carried}

    return compiled(step, finish)


def _empty(pasts, batch_size, slots):
    """Zeros for each past; of a cache, the axis without a size has the slots."""
    return {
        name: ops.zeros([batch_size, *_past_sizes(x, slots)], x.dtype) for name, x in pasts.items()
    }


def _past_bytes(pasts, batch_size, slots):
    """The bytes of what `_empty` makes, of a type of two bytes at least."""
    sizes = (
        math.prod(_past_sizes(x, slots)) * (4 if "32" in str(x.dtype) else 2)
        for x in pasts.values()
    )
    return batch_size * sum(sizes)


def _past_sizes(past, slots):
    return [slots if size is None else size for size in past.shape[1:]]


def _reordered(values, rows):
    rows = _integers(rows)
    return {name: ops.take(value, rows, axis=0) for name, value in values.items()}


def _check_length(length, positions):
    if positions is not None and length > positions:
        raise InputError(f"{length} tokens exceed the {positions} positions of the model.")


def _check_room(length, slots):
    if length > slots:
        raise InputError(
            f"{length} tokens do not fit the {slots} of this generation; "
            "start it with a larger max_length."
        )


def _padded(array, width):
    """`array` int (b, n) as int32 (b, width), zeros behind."""
    padded = np.zeros((len(array), width), "int32")
    padded[:, : array.shape[1]] = array
    return ops.convert_to_tensor(padded)


def _integers(values):
    return ops.convert_to_tensor(np.asarray(values, "int32"))


def _as_float32(logits):
    return np.asarray(ops.convert_to_numpy(logits), np.float32)


def _pieces(length):
    """The (start, end) of pieces that are powers of two, the largest first."""
    start = 0
    while start < length:
        end = start + min(LARGEST_CHUNK, 1 << ((length - start).bit_length() - 1))
        yield start, end
        start = end


def _bucket(length):
    return max(_SMALLEST_BUCKET, 1 << (length - 1).bit_length())
