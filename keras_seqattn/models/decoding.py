"""Runs Keras decoders with caches of fixed size and with steps that are compiled once."""

import math

import numpy as np
from keras import ops

from keras_seqattn.errors import InputError
from keras_seqattn.generation.prompts import first_tokens
from keras_seqattn.generation.room import LARGEST_CHUNK
from keras_seqattn.models.compiled import compiled
from keras_seqattn.models.functional import keras_dtype
from keras_seqattn.models.registry import get_family

_SMALLEST_BUCKET = 16


class KerasDecoder:
    """Runs a causal language model for `keras_seqattn.generation`.

    Prompts are padded to powers of two, so that the step is compiled for few lengths: the length of
    the prompt, and single tokens. In a model with states, padding would become part of a state. So
    such models read prompts in pieces whose lengths are powers of two.

    Args:
        model: a `SequenceModel` for causal_lm.

    Attributes:
        vocabulary_size: number of tokens v.
        is_streaming: whether no past grows. Texts may then have any length.
    """

    def __init__(self, model):
        step = model.step_model(static=True)
        ports = step.ports
        self.vocabulary_size = ports.given("logits").axes[-1]
        self.is_streaming = ports.is_streaming
        self._positions = get_family(model.family).longest(model.settings, "decoder")
        self._tokens, self._mask = ports.first("tokens").name, ports.first("mask").name
        self._slot = ports.first("slot")
        self._pasts = ports.pasts
        self._has_states = any(port.role != "cache" for port in self._pasts)
        self._step = _compiled_step(step)

    def room(self, rows, prompt_length, max_length, sources=0, source_length=0):
        """int, the minimum number of bytes of a generation. `sources` are for encoder-decoders."""
        read = min(prompt_length, LARGEST_CHUNK) if self._has_states else prompt_length
        return (
            _past_bytes(self._pasts, rows, _bucket(max_length))
            + 4 * rows * read * self.vocabulary_size
        )

    def start(self, batch_size, max_length):
        """Forget the past and make room for new tokens.

        Args:
            batch_size: number of rows b.
            max_length: maximum number of tokens of a row, including the prompt and its padding.

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
            InputError: there are more tokens than the `max_length` of `start`.
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
            fed = {self._mask: _integers(attention_mask[:, -length:])}
        else:
            fed = {self._mask: _padded(attention_mask, self._slots)}
            fed[self._slot.name] = _integers([self._used])
        if length > 1 and not self._has_states:
            width = min(_bucket(length), self._slots - self._used)
        fed[self._tokens] = _padded(input_ids, width)
        logits, self._past = self._step(self._past, fed, _integers(length - 1))
        self._used += length
        return logits

    def reorder(self, rows):
        """Make row i of the past a copy of row `rows[i]`, for beam search.

        Args:
            rows: int (b,).
        """
        self._past = _reordered(self._past, rows)


class KerasEncoderDecoder:
    """Runs a sequence-to-sequence model for `keras_seqattn.generation`.

    The source is encoded once. Its tokens are padded to a power of two, or to a multiple of the
    family's `source_multiple`; features only to the latter. Its keys and values are computed with
    it (in recurrent families, its states and memory). All beams share them.

    Args:
        model: a `SequenceModel` for seq2seq_lm.

    Attributes:
        vocabulary_size: number of tokens v that can be generated.
        source_vocabulary_size: number of tokens of the source, or None.
        source_features: None, or the number of features of each moment of a source.
    """

    def __init__(self, model):
        family, settings = get_family(model.family), model.settings
        self._positions = family.longest(settings, "decoder")
        self._source_positions = family.longest(settings, "encoder")
        encoder, step = model.encoder_model(static=True), model.step_model(static=True)
        self._reads, self._ports = encoder.ports, step.ports
        features = encoder.ports.first("features")
        self.source_features = None if features is None else features.axes[-1]
        self._source_multiple = family.source_multiple(settings)
        if features and self._source_multiple is None:
            # No mask hides padding from a layer that makes vectors of neighbouring features.
            self._source_multiple = 1
        self.source_vocabulary_size = None if features else encoder.ports.first("tokens").below
        self.vocabulary_size = step.ports.given("logits").axes[-1]
        self._carried, self._caches = step.ports.pasts, step.ports.of_role("cache")
        self._tokens, self._slot = step.ports.first("tokens").name, step.ports.first("slot")
        self._encode = compiled(encoder)
        self._step = _compiled_step(step)

    def room(self, rows, prompt_length, max_length, sources, source_length):
        """int, the minimum number of bytes of a generation. `rows` are the beams of all sources."""
        past = _past_bytes(self._caches, rows, _bucket(max_length))
        is_square = self._caches and not self._source_positions
        # Attention over a source compares each of its tokens with every other one.
        return past + (4 * sources * source_length**2 if is_square else 0)

    def encode(self, input_ids, attention_mask):
        """Read the sources.

        Args:
            input_ids: int64 (b, s), padded on the right, or features float (b, s, f).
            attention_mask: int64 (b, s), 1 = real token.

        Raises:
            InputError: the sources are longer than the positions of the model.
        """
        length = input_ids.shape[1]
        _check_length(length, self._source_positions)
        width = self._source_width(length)
        mask = _padded(attention_mask, width)
        given = {"tokens": input_ids, "features": input_ids, "mask": attention_mask}
        given["global_mask"] = first_tokens(attention_mask)
        fed = {p.name: _padded(given[p.role], width) for p in self._reads.inputs}
        outputs = self._encode({}, fed)
        self._sources = len(input_ids)
        self._encoded = {
            port.name: mask if port.role == "source_mask" else outputs[port.follows]
            for port in self._ports.inputs
            if port.role == "source_mask" or port.follows in outputs
        }

    def _source_width(self, length):
        """The length to which sources are padded. There are few lengths, so few compilations."""
        size = self._source_multiple
        width = _bucket(length) if size is None else -(-length // size) * size
        return min(width, self._source_positions or width)

    def start(self, batch_size, max_length):
        """Begin to decode the encoded sources.

        Args:
            batch_size: number of rows b, the beams of all sources: a multiple of the sources.
            max_length: maximum number of tokens of a row, including the start token.

        Raises:
            InputError: the model has fewer positions.
        """
        _check_length(max_length, self._positions)
        self._slots = _bucket(max_length)
        self._used = 0
        beams = batch_size // self._sources
        # Even one beam needs a copy, because carried tensors may be overwritten.
        values = {name: ops.repeat(x, beams, axis=0) for name, x in self._encoded.items()}
        self._past = _empty(self._caches, batch_size, self._slots)
        carried = [port.name for port in self._carried]
        self._past |= {name: values.pop(name) for name in carried if name in values}
        self._fixed = values

    def __call__(self, input_ids, attention_mask):
        """The logits that follow the given tokens.

        Args:
            input_ids: int64 (b, t), the tokens after those of the earlier calls, without padding.
            attention_mask: int64 (b, total) of ones, over all tokens so far.

        Returns:
            float32 (b, v), for the last position.

        Raises:
            InputError: there are more tokens than the `max_length` of `start`.
        """
        length = input_ids.shape[1]
        _check_room(self._used + length, self._slots)
        fed = {self._tokens: _integers(input_ids), **self._fixed}
        if self._slot is not None:
            fed[self._slot.name] = _integers([self._used])
        logits, self._past = self._step(self._past, fed, _integers(length - 1))
        self._used += length
        return _as_float32(logits)

    def reorder(self, rows):
        """Continue row i from the past of row `rows[i]`, a beam of the same source.

        Args:
            rows: int (b,).
        """
        self._past = _reordered(self._past, rows)


def _compiled_step(step):
    """The step as `(carried, fed, last int) -> (logits (b, v) at `last`, the next carried)`."""
    logits, pasts = step.ports.given("logits").name, step.ports.pasts

    def finish(outputs, last):
        return ops.take(outputs[logits], last, axis=1), {
            port.name: outputs[port.follows] for port in pasts
        }

    return compiled(step, finish)


def _empty(pasts, batch_size, slots):
    """Zeros for each past, with the types of Keras. Caches have `slots` places for tokens."""
    return {
        port.name: ops.zeros([batch_size, *_past_sizes(port, slots)], keras_dtype(port.dtype))
        for port in pasts
    }


def _past_bytes(pasts, batch_size, slots):
    """The number of bytes of the result of `_empty`: two or four per value."""
    sizes = (
        math.prod(_past_sizes(port, slots)) * (2 if port.dtype in ("float16", "bfloat16") else 4)
        for port in pasts
    )
    return batch_size * sum(sizes)


def _past_sizes(port, slots):
    return [slots if isinstance(size, str) else size for size in port.axes[1:]]


def _reordered(values, rows):
    rows = _integers(rows)
    return {name: ops.take(value, rows, axis=0) for name, value in values.items()}


def _check_length(length, positions):
    if positions is not None and length > positions:
        raise InputError(f"{length} tokens exceed the {positions} positions of the model.")


def _check_room(length, slots):
    if length > slots:
        raise InputError(
            f"{length} tokens do not fit the {slots} places of this generation; "
            "start it with a larger max_length."
        )


def _padded(array, width):
    """`array` (b, n, ...) as int32 or float32 (b, width, ...), with zeros at the end."""
    dtype = "int32" if array.dtype.kind in "iu" else "float32"
    padded = np.zeros((len(array), width, *array.shape[2:]), dtype)
    padded[:, : array.shape[1]] = array
    return ops.convert_to_tensor(padded)


def _integers(values):
    return ops.convert_to_tensor(np.asarray(values, "int32"))


def _as_float32(logits):
    return np.asarray(ops.convert_to_numpy(logits), np.float32)


def _pieces(length):
    """The (start, end) of pieces whose lengths are powers of two, the largest first."""
    start = 0
    while start < length:
        end = start + min(LARGEST_CHUNK, 1 << ((length - start).bit_length() - 1))
        yield start, end
        start = end


def _bucket(length):
    return max(_SMALLEST_BUCKET, 1 << (length - 1).bit_length())
