"""Compares an exported file with its Keras model. Each comparison is a `Case`."""

import functools
import math
import threading
import warnings

import keras
import numpy as np

from keras_seqattn.errors import BundleError, ExportError, InputError, SeqAttnError
from keras_seqattn.models.compiled import compiled
from keras_seqattn.models.functional import PortModel
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.onnx.declared import named_inputs, named_outputs, output_name
from keras_seqattn.onnx.inputs import InputGenerator, padding_mask
from keras_seqattn.onnx.refusals import reason
from keras_seqattn.onnx.report import Case, difference
from keras_seqattn.onnx.states import KeptStates
from keras_seqattn.runtime.values import empty_past

# Filters of warnings are global in a process. If two threads change them, the last one to finish
# would restore the wrong filters.
_FILTERING = threading.RLock()
# How often the last bits are changed, to measure how far this moves the results of Keras.
_CHANGES = 3


class Comparison:
    """The comparisons for a model with one graph.

    Args:
        model: the Keras model.
        session: onnxruntime.InferenceSession of the file.
        precision: Precision that judges the results.
        lengths: lengths of the inputs of full passes. None chooses them.
    """

    def __init__(self, model, session, precision, lengths=None):
        self.model, self.session, self.precision = model, session, precision
        self.ports = session.ports
        self.states = KeptStates(model, self.ports)
        self.outputs = self.states.without([o.name for o in session.get_outputs()])
        # A past of another maker's model is an input like any other.
        self.pasts = self.ports.pasts if isinstance(model, PortModel) else []
        self._check_inputs()
        self.generator = InputGenerator(
            model, lengths, None if isinstance(model, PortModel) else self.ports
        )
        self._call = model_function(model)
        # Results that were computed to see whether the model accepts a shape, kept for comparison.
        self._tried = {}

    def _check_inputs(self):
        file = {port.name for port in self.ports.inputs}
        own = {*named_inputs(self.model), *self.states.variables}
        if not self.pasts and file != own:
            raise BundleError(
                f"the file is of another model: it takes {', '.join(sorted(file))}, and "
                f"{self.model.name} {', '.join(sorted(own))}"
            )

    def jobs(self):
        """Functions without arguments. Each makes one comparison.

        Raises:
            InputError: no length was found that the model accepts.
        """
        # Models of our families accept what their configuration says. Other models are tried.
        takes = None if isinstance(self.model, SequenceModel) else self._takes
        cases = self.generator.cases(takes)
        if not cases:
            raise InputError(
                f"{self.model.name} accepts none of the lengths that were tried: {self._refusal}. "
                "Give the lengths for the comparison with lengths=[...]"
            )
        for batch, length, side in cases:
            yield lambda b=batch, n=length, s=side: self.full(b, n, s)
        if takes and self._lengths_differ() and self._takes(cases[-1][0], 7, apart=True):
            yield lambda: self.full(cases[-1][0], 7, None, apart=True)
        if self.pasts:
            for batch, side in ((1, None), (3, "left"), (3, "right")):
                yield lambda b=batch, s=side: self.cached(b, 7, self.generator.steps(), s)
            yield self.greedy

    def _takes(self, batch, length, apart=False):
        """Whether Keras can run the model on inputs of a length."""
        inputs = self._inputs(batch, length, None, apart)
        try:
            self._tried[batch, length, apart] = inputs, self.keras(inputs)
        except InputError as error:
            self._refusal = error
            return False
        return True

    def _lengths_differ(self):
        """Whether the inputs of the file have different dynamic lengths."""
        axes = [[n for n in port.axes[1:] if isinstance(n, str)] for port in self.ports.inputs]
        return len({tuple(lengths) for lengths in axes if lengths}) > 1

    def full(self, batch, length, side, apart=False):
        """One pass over whole sequences. For `apart`, see `InputGenerator.inputs`."""
        tried = None if side else self._tried.pop((batch, length, apart), None)
        inputs = tried[0] if tried else self._inputs(batch, length, side, apart)
        expected = tried[1] if tried else self.keras(inputs)
        name = f"batch {batch}" + ("" if length is None else f", length {length}") + padded(side)
        name += " and less" if apart else ""
        masks = self.generator.masks(inputs)
        case = compare(name, expected, self.ort(inputs), self.precision, masks)
        above = math.isfinite(case.error) and case.error > self.precision.tolerance
        if self.precision.exact and above and not self.states.variables:
            case.rounding = self._rounding(inputs, expected, masks)
        return case

    def _inputs(self, batch, length, side, apart):
        """Inputs and states by name, as for `InputGenerator.inputs`."""
        inputs = self.generator.inputs(batch, length, side, apart)
        return inputs | self.states.draw(self.generator.random)

    def _rounding(self, inputs, expected, masks):
        """How far the outputs of Keras move if weights and inputs change in their last bit."""
        moved = 0.0
        for seed in range(_CHANGES):
            nudge = functools.partial(_nudged, random=np.random.default_rng(seed))
            feeds = keras.tree.map_structure(nudge, self.generator.for_keras(inputs))
            variables = [
                [nudge(keras.ops.convert_to_numpy(v.value)) for v in part]
                for part in (self.model.trainable_variables, self.model.non_trainable_variables)
            ]
            call = functools.partial(self.model.stateless_call, *variables, feeds, training=False)
            outputs = self._named(run_keras(self.model, call, inputs)[0])
            moved = max(moved, compare("", expected, outputs, self.precision, masks).error)
        return moved

    def cached(self, batch, length, steps, side):
        """Compare prefill and single steps with one full pass."""
        inputs = self.generator.inputs(batch, length + steps, None)
        ids, mask = (inputs[self.generator.ports.first(role).name] for role in ("tokens", "mask"))
        mask[:, :length] = padding_mask((batch, length), side)
        expected = self.keras(inputs)
        past, parts = empty_pasts(self.pasts, batch), []
        for start, end in self._calls(length, steps):
            outputs, past = self._step(ids[:, start:end], mask[:, :end], past)
            parts.append(outputs[self._logits])
        name = f"batch {batch}, prefill {length} + {steps} cached steps{padded(side)}"
        actual = {self._logits: np.concatenate(parts, axis=1)}
        return compare(name, expected, actual, self.precision, [mask])

    def greedy(self):
        """Greedy tokens of the file. Each is compared with the choice of Keras."""
        tokens, mask = (self.generator.ports.first(role).name for role in ("tokens", "mask"))
        ids = step = self.generator.inputs(1, 7, None)[tokens]
        past = empty_pasts(self.pasts, 1)
        for _ in range(self.generator.steps()):
            outputs, past = self._step(step, np.ones_like(ids), past)
            step = outputs[self._logits][:, -1:].argmax(-1)
            ids = np.concatenate([ids, step], axis=1)
        expected = self.keras({tokens: ids[:, :-1], mask: np.ones_like(ids[:, :-1])})
        return compare_tokens(ids[:, 7:], expected[self._logits][:, 6:], self.precision)

    def keras(self, inputs):
        """The outputs of the Keras model by name.

        Raises:
            InputError: the model cannot run on the inputs.
            BundleError: the outputs are not those of the file.
        """
        call = functools.partial(self._call, self.generator.for_keras(inputs))
        run = functools.partial(run_keras, self.model, call, inputs)
        outputs, states = self.states.run(inputs, run)
        return self._named(outputs) | states

    def _named(self, outputs):
        if not isinstance(outputs, dict):
            flat = keras.tree.flatten(outputs)
            if len(flat) != len(self.outputs):
                raise BundleError(
                    f"the file is of another model: it has {len(self.outputs)} outputs, and "
                    f"{self.model.name} {len(flat)}"
                )
            outputs = dict(zip(self.outputs, flat, strict=True))
        else:
            outputs = named_outputs(self.model, outputs, self.generator.ports)
            outputs = {output_name(k, self.generator.tensors): v for k, v in outputs.items()}
        missing = sorted(set(outputs) - set(self.outputs))
        if missing:
            raise BundleError(f"the file is of another model: it has no output {missing[0]}")
        return {k: keras.ops.convert_to_numpy(v) for k, v in outputs.items()}

    def ort(self, inputs):
        """The outputs of the file by name."""
        if self.pasts and self.pasts[0].name not in inputs:
            rows = len(inputs[self.ports.first("tokens").name])
            inputs = {**inputs, **empty_pasts(self.pasts, rows)}
        return run_session(self.session, inputs)

    def _calls(self, length, steps):
        """The (start, end) of each call. A streaming prefill has two parts."""
        calls = prefill_and_steps(length, steps)
        if not self.ports.is_streaming:
            return calls
        return [(0, length // 2), (length // 2, length), *calls[1:]]

    def _step(self, ids, mask, past):
        """The outputs after the next tokens, and the past for the next step."""
        if self.ports.is_streaming:
            mask = mask[:, -ids.shape[1] :]
        named = {self.ports.first("tokens").name: ids, self.ports.first("mask").name: mask}
        outputs = self.ort({**named, **past})
        return outputs, {port.name: outputs[port.follows] for port in self.pasts}

    @property
    def _logits(self):
        return self.ports.given("logits").name


def compare(name, expected, actual, precision, masks=()):
    """The `Case` of arrays by output name. Where a mask (b, t) is 0, outputs (b, t, ...) are not
    compared."""
    errors, rows, agreement = [], 0, None
    for output, value in expected.items():
        a, b = value.astype(np.float64), actual[output].astype(np.float64)
        if a.shape != b.shape:
            raise ExportError(
                f"{name}: {output} has shape {b.shape} in the file, {a.shape} in Keras"
            )
        fitting = [mask != 0 for mask in masks if a.ndim > 1 and a.shape[:2] == mask.shape]
        if fitting:
            a, b = (x[np.logical_and.reduce(fitting)] for x in (a, b))
        errors.append(difference(a, b, precision))
        if np.isfinite(a).any():
            rows = max(rows, a.size // a.shape[-1] if a.ndim else 1)
        if output == "logits" and a.size:
            agreement = float((a.argmax(-1) == b.argmax(-1)).mean())
    return Case(name, max(errors), rows, agreement)


def _nudged(array, random):
    """An array in which each float is replaced by the next higher or lower one."""
    array = np.asarray(array)
    if array.dtype.kind != "f":
        return array
    up = random.random(array.shape) < 0.5
    return np.nextafter(array, np.where(up, np.inf, -np.inf).astype(array.dtype))


def compare_tokens(tokens, logits, precision):
    """The `Case` of greedy tokens (b, t) and the logits of Keras (b, t, v) at their places."""
    agreement = float((logits.argmax(-1) == tokens).mean())
    name = f"{tokens.size} greedy tokens"
    # A rounded file may prefer another token. This is information, not a failure.
    if not precision.exact:
        return Case(name, 0.0, 0, agreement)
    return Case(name, 1.0 - agreement, tokens.size, agreement)


def prefill_and_steps(length, steps):
    """The (start, end) of each call: first `length` tokens at once, then one at a time."""
    return [(0, length), *((n, n + 1) for n in range(length, length + steps))]


def empty_pasts(pasts, batch):
    """The first values of the ports of a past, by name."""
    return {port.name: empty_past(port, batch) for port in pasts}


def padded(side):
    """What the name of a case says about padding."""
    return f", {side} padding" if side else ""


def run_keras(model, call, inputs):
    """The result of Keras. A model may refuse inputs with any error.

    Raises:
        InputError: the model raised an error.
    """
    try:
        return without_gradients(call)
    except SeqAttnError:
        raise
    except Exception as error:  # of Keras, of its backend, or of a user's layer
        shapes = ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
        raise InputError(f"Keras cannot run {model.name} on {shapes}: {reason(error)}") from error


def run_session(session, inputs):
    """The outputs of a session by name. The inputs get the types that the session declares."""
    types = {port.name: port.dtype for port in session.ports.inputs}
    inputs = {n: np.asarray(x).astype(types.get(n, x.dtype), copy=False) for n, x in inputs.items()}
    try:
        values = session.run(None, inputs)
    except Exception as error:  # errors of onnxruntime have no common public base class
        raise BundleError(f"onnxruntime cannot run the file: {reason(error)}") from error
    return dict(zip((o.name for o in session.get_outputs()), values, strict=True))


def model_function(model):
    """A function that calls the model. JAX would compile each operation for each shape. Here it
    compiles the whole model, once for all verifications.
    """
    if keras.backend.backend() != "jax" or not isinstance(model, SequenceModel):
        return lambda inputs: model(inputs, training=False)
    if not hasattr(model, "_compiled"):
        model._compiled = compiled(model)
    return lambda inputs: model._compiled({}, inputs)


def without_gradients(function):
    """Run Keras only for its numbers: no gradients, and no warning about an axis of length 1."""
    with _FILTERING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using a softmax over axis")
        if keras.backend.backend() != "torch":
            return function()
        import torch

        with torch.no_grad():
            return function()
