"""Compares the two files of an encoder-decoder with its Keras model, one `Case` each."""

import keras
import numpy as np

from keras_seqattn.onnx.comparison import (
    compare,
    compare_tokens,
    empty_pasts,
    padded,
    prefill_and_steps,
)
from keras_seqattn.onnx.inputs import InputGenerator
from keras_seqattn.onnx.sides import model_function, run_keras, run_session

_SOURCE_LENGTHS = (1, 5, 29)
_CACHED_SOURCE = 5
# The number of tokens of a target that are decoded at once, before the cached steps.
_PREFILL = 3


class Seq2SeqComparison:
    """The comparisons for an encoder-decoder, with caches or with recurrent states.

    Args:
        model: the Keras model.
        encoder, decoder: onnxruntime.InferenceSession of the two files.
        precision: Precision that judges the results.
        lengths: lengths of the sources. None chooses them.
    """

    def __init__(self, model, encoder, decoder, precision, lengths=None):
        self.model, self.precision = model, precision
        self.encoder, self.decoder = encoder, decoder
        # Our models accept all lengths that they declare.
        self.left_out = []
        self.generator = InputGenerator(model, lengths)
        # All targets have one length, so that Keras compiles for few shapes.
        self.targets = _PREFILL + self.generator.steps()
        self._call = model_function(model)

    def jobs(self):
        """Functions without arguments. Each makes one comparison."""
        rows = [(1, None), (3, "left"), (3, "right")]
        for length in self.generator.lengths(_SOURCE_LENGTHS):
            for batch, side in rows:
                yield lambda b=batch, n=length, s=side: self.steps(b, n, s, self.targets)
        for batch, side in rows:
            yield lambda b=batch, s=side: self.steps(b, _CACHED_SOURCE, s, _PREFILL)
        yield self.greedy

    def steps(self, batch, length, side, prefill):
        """Compare the encoder, a prefill and cached single steps with one full pass."""
        inputs = self.generator.inputs(batch, length, side)
        targets, steps = self.generator.targets(batch, self.targets), self.targets - prefill
        decoding = _Decoding(self.encoder, self.decoder, inputs)
        parts = [decoding.step(targets[:, a:b]) for a, b in prefill_and_steps(prefill, steps)]
        name = f"batch {batch}, source length {length}{padded(side)}, prefill {prefill}"
        name += f" + {steps} cached steps" if steps else ""
        expected = {"logits": self.keras(inputs, targets)}
        return compare(name, expected, {"logits": np.concatenate(parts, axis=1)}, self.precision)

    def greedy(self):
        """Greedy tokens of the files. Each is compared with the choice of Keras."""
        inputs = self.generator.inputs(1, _CACHED_SOURCE, None)
        decoding = _Decoding(self.encoder, self.decoder, inputs)
        tokens = [self.generator.targets(1, 1)]
        for _ in range(self.targets):
            tokens.append(decoding.step(tokens[-1])[:, -1:].argmax(-1))
        targets = np.concatenate(tokens, axis=1)
        logits = self.keras(inputs, targets[:, :-1])
        return compare_tokens(targets[:, 1:], logits, self.precision)

    def keras(self, inputs, targets):
        """The logits of the Keras model."""
        name = self.generator.ports.first("targets").name
        feeds = self.generator.for_keras({**inputs, name: targets})
        outputs = run_keras(self.model, lambda: self._call(feeds), feeds)
        return keras.ops.convert_to_numpy(outputs["logits"])


class _Decoding:
    """Decodes the targets of one batch of sources with the ports of both files."""

    def __init__(self, encoder, decoder, inputs):
        self.decoder, ports = decoder, decoder.ports
        given = {port.name: inputs[port.name] for port in encoder.ports.inputs}
        self.values = run_session(encoder, given)
        source, mask = next(iter(given.values())), encoder.ports.first("mask")
        for port in ports.of_role("source_mask"):
            # Without a mask, all of the source is real.
            self.values[port.name] = inputs[mask.name] if mask else np.ones(source.shape[:2])
        caches, rows = ports.of_role("cache", "source_cache"), len(source)
        for name, cache in empty_pasts(caches, rows).items():
            self.values[ports[name].follows] = cache

    def step(self, input_ids):
        """The logits of the next tokens."""
        ports = self.decoder.ports
        self.values[ports.first("tokens").name] = input_ids
        given = {port.name: self.values[port.follows or port.name] for port in ports.inputs}
        self.values |= run_session(self.decoder, given)
        return self.values[ports.given("logits").name]
