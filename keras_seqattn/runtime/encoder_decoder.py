"""Drives the two graphs of an encoder-decoder; what the source gave is computed once."""

import numpy as np
from onnxruntime import OrtValue

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.generation.prompts import first_tokens
from keras_seqattn.generation.steps import is_cache, output_for, varies_per_beam
from keras_seqattn.runtime.values import Logits, bind_integers, device_of, empty_past, past_bytes

_MASK = "encoder_attention_mask"


class OrtEncoderDecoder:
    """The encoder-decoder protocol of `keras_seqattn.generation` over two onnxruntime sessions.

    Attentive decoders keep key/value caches: that of the source is made by the first step, once for
    all beams, and only read afterwards; that of the tokens grows. Recurrent ones keep states.

    Args:
        encoder: onnxruntime.InferenceSession of a graph with inputs input_ids and attention_mask,
            int64 (b, s), and perhaps global_attention_mask: the first token of a source is global.
        decoder: that of a graph with inputs input_ids int64 (b, t), encoder_attention_mask int64
            (b, s), and by the names of `keras_seqattn.generation.steps` what the encoder or the
            step before gave out; outputs logits (b, t, v) and the next of these.
        source_vocabulary_size: int, ids of sources are below it.
        max_source_length: int, the most tokens of a source, or None.
    """

    def __init__(self, encoder, decoder, source_vocabulary_size, max_source_length=None):
        self._encoder, self._decoder = encoder, decoder
        self._inputs = {value.name: value for value in decoder.get_inputs()}
        _check_parts(encoder, decoder)
        outputs = {value.name for value in decoder.get_outputs()}
        self._produced = [name for name in self._inputs if output_for(name) in outputs]
        self._carried = [name for name in self._produced if varies_per_beam(name)]
        self._logits = Logits(decoder)
        self._device = device_of(decoder)
        self.vocabulary_size = self._logits.size
        self.source_vocabulary_size = source_vocabulary_size
        self.max_source_length = max_source_length

    def room(self, rows, prompt_length, max_length, sources, source_length):
        """int, the least bytes that a generation takes: `rows` are the beams of all sources."""
        caches = [value for name, value in self._inputs.items() if is_cache(name)]
        own = [value for value in caches if varies_per_beam(value.name)]
        others = [value for value in caches if not varies_per_beam(value.name)]
        past = 2 * past_bytes(own, rows, max_length) + past_bytes(others, rows, source_length)
        # Attention over a source compares each of its tokens with each, in float32 or more.
        scores = 4 * sources * source_length**2 if caches and not self.max_source_length else 0
        return past + scores + self._logits.room(rows, prompt_length)

    def encode(self, input_ids, attention_mask):
        """Read sources, int64 (b, s), padded on the right; the mask has 1 for real tokens."""
        length, limit = input_ids.shape[1], self.max_source_length
        if limit is not None and length > limit:
            raise InputError(
                f"a source has {length} tokens, and the model takes {limit}: shorten it"
            )
        binding = self._encoder.io_binding()
        bind_integers(binding, "input_ids", input_ids)
        bind_integers(binding, "attention_mask", attention_mask)
        if "global_attention_mask" in {value.name for value in self._encoder.get_inputs()}:
            bind_integers(binding, "global_attention_mask", first_tokens(attention_mask))
        names = [value.name for value in self._encoder.get_outputs()]
        for name in names:
            binding.bind_output(name, self._device)
        self._encoder.run_with_iobinding(binding)
        outputs = dict(zip(names, binding.get_outputs(), strict=True))
        outputs[_MASK] = self._value(attention_mask.astype(np.int64))
        self._sources = len(input_ids)
        self._encoded = {
            name: outputs[output_for(name)] for name in self._inputs if output_for(name) in outputs
        }

    def start(self, batch_size, max_length):
        """Begin to decode at most `max_length` tokens of `batch_size` rows, beams x sources."""
        self._beams = batch_size // self._sources
        self._max_length = max_length
        self._length = 0
        self._values = {
            name: self._value(empty_past(value, self._sources))
            for name, value in self._inputs.items()
            if is_cache(name)
        } | self._encoded
        self._bind(self._produced)

    def __call__(self, input_ids, attention_mask):
        """Run the next tokens; float32 (b, v), the last logits, valid until the next call.

        The beams of a source begin with the same tokens. `attention_mask` is all ones.
        """
        if self._length + input_ids.shape[1] > self._max_length:
            raise InputError(f"the sequence is longer than the {self._max_length} tokens planned")
        if self._length:
            logits = self._step(input_ids, self._carried)
        else:
            # Beams differ from their second token on: what is equal is computed once.
            logits = self._step(input_ids[:: self._beams], self._produced)
            logits = self._spread(logits)
        self._length += input_ids.shape[1]
        return logits

    def reorder(self, rows):
        """Let row i go on from the past of row `rows[i]`, a beam of the same source."""
        rows = np.asarray(rows)
        if (rows == np.arange(len(rows))).all():
            return
        for name in self._carried:
            self._values[name] = self._value(self._values[name].numpy()[rows])

    def _step(self, input_ids, produced):
        """Run the decoder; the values named in `produced` are replaced by the next ones."""
        binding = self._binding
        bind_integers(binding, "input_ids", input_ids)
        self._logits.bind(binding, *input_ids.shape)
        for name in produced:
            binding.bind_ortvalue_input(name, self._values[name])
            binding.bind_output(output_for(name), self._device)
        self._decoder.run_with_iobinding(binding)
        # Outputs come in the order in which they were first bound: the logits are first.
        self._values.update(zip(produced, binding.get_outputs()[1:], strict=True))
        return self._logits.last()

    def _spread(self, logits):
        """Give every beam its copy of what the first step left, and read sources only from now."""
        if self._beams > 1:
            for name, value in self._values.items():
                self._values[name] = self._value(value.numpy().repeat(self._beams, axis=0))
        self._bind(self._carried)
        return logits.repeat(self._beams, axis=0)

    def _bind(self, produced):
        """Bind the values that steps leave as they are."""
        self._binding = self._decoder.io_binding()
        for name, value in self._values.items():
            if name not in produced:
                self._binding.bind_ortvalue_input(name, value)

    def _value(self, array):
        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self._device)


def _check_parts(encoder, decoder):
    given = {value.name for value in encoder.get_outputs()}
    given |= {value.name for value in decoder.get_outputs()} | {"input_ids", _MASK}
    missing = [v.name for v in decoder.get_inputs() if output_for(v.name) not in given]
    if missing:
        raise BundleError(
            f"the decoder graph takes {', '.join(missing)}, which neither graph gives out"
        )
