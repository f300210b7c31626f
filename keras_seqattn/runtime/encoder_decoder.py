"""Runs the two graphs of an encoder-decoder. The work for a source is done only once."""

import numpy as np
from onnxruntime import OrtValue

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.generation.prompts import first_tokens
from keras_seqattn.runtime.graph_ports import numpy_dtype
from keras_seqattn.runtime.values import (
    Logits,
    bind_array,
    check_pasts,
    device_of,
    empty_past,
    past_bytes,
    static_size,
)

# The roles of the inputs of an encoder that come from a source.
_ENCODED = {"tokens", "features", "mask", "global_mask"}


class OrtEncoderDecoder:
    """The encoder-decoder protocol of `keras_seqattn.generation` with two onnxruntime sessions.

    Decoders with attention have key/value caches. The first step makes the cache of the source,
    once for all beams; later steps only read it. The cache of the tokens grows. Recurrent decoders
    have states.

    Args:
        encoder: Session of a graph. The roles of its `Ports` are: inputs tokens and a mask, int
            (b, s), and perhaps a global mask (the first token of a source is global).
        decoder: Session of a graph with inputs tokens int (b, t) and a source mask int (b, s). Its
            other inputs are outputs of the encoder or of the step before. Its outputs are logits
            (b, t, v) and the inputs of the next step.
        source_vocabulary_size: int, ids of sources are below it. It is not used for features.
        max_source_length: None, or int, the maximum number of tokens of a source.
    """

    def __init__(self, encoder, decoder, source_vocabulary_size, max_source_length=None):
        self._encoder, self._decoder = encoder, decoder
        _check_parts(encoder.ports, decoder.ports)
        self._inputs = {port.name: port for port in decoder.ports.inputs}
        self._tokens, self._mask = decoder.ports.first("tokens"), decoder.ports.first("source_mask")
        self._produced = [
            name for name, port in self._inputs.items() if decoder.ports.output(port.follows)
        ]
        self._carried = [name for name in self._produced if self._inputs[name].is_past]
        self._caches = decoder.ports.of_role("cache", "source_cache")
        self._logits = Logits(decoder.ports)
        self._device = device_of(decoder)
        self.vocabulary_size = self._logits.size
        self.source_vocabulary_size = source_vocabulary_size
        features = encoder.ports.first("features")
        self.source_features = None if features is None else static_size(features, -1)
        self.max_source_length = max_source_length

    def room(self, rows, prompt_length, max_length, sources, source_length):
        """int, the minimum number of bytes of a generation. `rows` are the beams of all sources."""
        own = [port for port in self._caches if port.role == "cache"]
        others = [port for port in self._caches if port.role != "cache"]
        past = 2 * past_bytes(own, rows, max_length) + past_bytes(others, rows, source_length)
        # Attention over a source compares each token with every other one, in float32 or wider.
        scores = (
            4 * sources * source_length**2 if self._caches and not self.max_source_length else 0
        )
        return past + scores + self._logits.room(rows, prompt_length)

    def encode(self, input_ids, attention_mask):
        """Read sources, int64 (b, s) or float (b, s, f), padded on the right.

        Args:
            input_ids: ids of tokens, or features.
            attention_mask: int64 (b, s), 1 = real.
        """
        length, limit = input_ids.shape[1], self.max_source_length
        if limit is not None and length > limit:
            raise InputError(
                f"a source has {length} tokens, and the model takes {limit}: shorten it"
            )
        binding = self._encoder.io_binding()
        given = {"tokens": input_ids, "features": input_ids, "mask": attention_mask}
        given["global_mask"] = first_tokens(attention_mask)
        for port in self._encoder.ports.inputs:
            bind_array(binding, port, given[port.role])
        names = [port.name for port in self._encoder.ports.outputs]
        for name in names:
            binding.bind_output(name, self._device)
        self._encoder.run_with_iobinding(binding)
        outputs = dict(zip(names, binding.get_outputs(), strict=True))
        self._sources = len(input_ids)
        self._encoded = {
            name: outputs[port.follows]
            for name, port in self._inputs.items()
            if port.follows in outputs
        }
        if self._mask is not None:
            mask = attention_mask.astype(numpy_dtype(self._mask))
            self._encoded[self._mask.name] = self._value(mask)

    def start(self, batch_size, max_length):
        """Begin to decode at most `max_length` tokens of `batch_size` rows (beams x sources)."""
        self._beams = batch_size // self._sources
        self._max_length = max_length
        self._length = 0
        self._values = {
            port.name: self._value(empty_past(port, self._sources)) for port in self._caches
        } | self._encoded
        self._bind(self._produced)

    def __call__(self, input_ids, attention_mask):
        """Run the next tokens. float32 (b, v), the last logits, valid until the next call.

        The beams of a source begin with the same tokens. `attention_mask` holds only ones.
        """
        if self._length + input_ids.shape[1] > self._max_length:
            raise InputError(f"the sequence is longer than the {self._max_length} tokens planned")
        if self._length:
            logits = self._step(input_ids, self._carried)
        else:
            # Beams differ only from their second token on. Until then, they are computed once.
            logits = self._step(input_ids[:: self._beams], self._produced)
            logits = self._spread(logits)
        self._length += input_ids.shape[1]
        return logits

    def reorder(self, rows):
        """Continue row i from the past of row `rows[i]`, a beam of the same source."""
        rows = np.asarray(rows)
        if (rows == np.arange(len(rows))).all():
            return
        for name in self._carried:
            self._values[name] = self._value(self._values[name].numpy()[rows])

    def _step(self, input_ids, produced):
        """Run the decoder. The values named in `produced` are replaced by the next ones."""
        binding = self._binding
        bind_array(binding, self._tokens, input_ids)
        self._logits.bind(binding, *input_ids.shape)
        for name in produced:
            binding.bind_ortvalue_input(name, self._values[name])
            binding.bind_output(self._inputs[name].follows, self._device)
        self._decoder.run_with_iobinding(binding)
        # The outputs are in the order in which they were first bound. The logits are the first one.
        self._values.update(zip(produced, binding.get_outputs()[1:], strict=True))
        return self._logits.last()

    def _spread(self, logits):
        """Copy the results of the first step for every beam. Later steps only read sources."""
        if self._beams > 1:
            for name, value in self._values.items():
                self._values[name] = self._value(value.numpy().repeat(self._beams, axis=0))
        self._bind(self._carried)
        return logits.repeat(self._beams, axis=0)

    def _bind(self, produced):
        """Bind the values that steps do not change."""
        self._binding = self._decoder.io_binding()
        for name, value in self._values.items():
            if name not in produced:
                self._binding.bind_ortvalue_input(name, value)

    def _value(self, array):
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device)


def _check_parts(encoder, decoder):
    missing = [port.name for port in decoder.inputs if not _is_fed(port, encoder)]
    if missing:
        raise BundleError(
            f"the decoder graph takes {', '.join(missing)}, which neither graph gives out"
        )
    check_pasts(decoder)
    if len(decoder.of_role("tokens")) != 1 or len(decoder.of_role("source_mask")) > 1:
        raise BundleError("the decoder graph must have one input of tokens and at most one mask")
    roles = [port.role for port in encoder.inputs]
    once = len(set(roles)) == len(roles)
    if not once or not set(roles) <= _ENCODED or not {"tokens", "features"} & set(roles):
        raise BundleError(
            "the encoder graph must take tokens or features, and their mask; it takes "
            + ", ".join(f"{port.name} ({port.role})" for port in encoder.inputs)
        )


def _is_fed(port, encoder):
    """Whether a step has a value for an input of the decoder graph. Pasts are checked later."""
    if port.role in ("tokens", "source_mask"):
        return port.follows is None
    if port.role == "context":
        return encoder.output(port.follows) is not None
    return port.is_past or port.role == "source_cache"
