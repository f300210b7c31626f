"""Compares an exported file with its Keras model. Each comparison is a `Case`."""

import functools
import itertools
import math

import keras
import numpy as np

from keras_seqattn.errors import BundleError, ExportError, InputError
from keras_seqattn.models.functional import PortModel
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.onnx import moments
from keras_seqattn.onnx.declared import named_inputs, named_outputs, output_name
from keras_seqattn.onnx.draws import SPREADS, padding_mask
from keras_seqattn.onnx.inputs import InputGenerator
from keras_seqattn.onnx.lower.random import RANDOM
from keras_seqattn.onnx.report import Case, difference
from keras_seqattn.onnx.sides import model_function, run_keras, run_session
from keras_seqattn.onnx.states import KeptStates
from keras_seqattn.onnx.ties import without_ties
from keras_seqattn.runtime.values import empty_past

# How often the last bits are changed, to measure how far this moves the results of Keras.
_CHANGES = 3

# What onnxruntime says of an index beyond a table.
_BEYOND = "out of data bounds"


class Comparison:
    """The comparisons for a model with one graph.

    Args:
        model: the Keras model.
        session: onnxruntime.InferenceSession of the file.
        precision: Precision that judges the results.
        lengths: lengths of the inputs of full passes. None chooses them.

    Attributes:
        left_out: list of str, what was not compared because the model does not run on it. It is
            complete after `jobs`.
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
        self.left_out, self._refusal = [], None

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
        if takes and self.generator.has_free_integers:
            self._choose_spread()
        cases = self.generator.cases(takes)
        if not cases:
            raise InputError(
                f"{self.model.name} accepts none of the lengths that were tried: {self._refusal}. "
                "Give the lengths for the comparison with lengths=[...]"
            )
        full = self._full_if_taken if takes else self.full
        for batch, length, side in cases:
            yield lambda b=batch, n=length, s=side: full(b, n, s)
        if takes:
            yield from self._further(cases)
        if self.pasts:
            # Padding on the right of a prompt is in the middle of the row after a step.
            sides = getattr(self.model, "padding_sides", ("left", "right"))
            for batch, side in ((1, None), *((3, side) for side in sides)):
                yield lambda b=batch, s=side: self.cached(b, 7, self.generator.steps(), s)
            yield self.greedy

    def _choose_spread(self):
        """Find the widest range of integers that nothing limits on which Keras and the file run.

        An integer may be an index, or a number of classes, in a way that only a try shows.
        """
        batch, fixed = self.generator.batches()[0], not self.generator.is_long()
        beyond = None
        lengths = [None] if fixed else self.generator.wanted_lengths()[1:3] or [1]
        for length, spread in itertools.product(lengths, SPREADS):
            self.generator.spread, self.generator.turn = spread, 0
            if not self._takes(batch, length):
                continue
            if self._file_takes(self._tried[batch, length, (), False][0]):
                if beyond:
                    self.left_out.append(f"integers beyond {spread}: {beyond}")
                return
            beyond = self._refusal
            del self._tried[batch, length, (), False]

    def _file_takes(self, inputs):
        """Whether onnxruntime can run the file on inputs on which Keras can run the model."""
        try:
            self.ort(inputs)
        except BundleError as error:
            self._refusal = error
            return False
        return True

    def _further(self, cases):
        """Functions for more cases of a model that may be any: each dimension has its own size, and
        a row has no key."""
        lengths = sorted({n for _, n, _ in cases if n is not None})
        if lengths and not self.generator.has_given_lengths:
            missing = [n for n in self.generator.wanted_lengths() if n not in lengths]
            self._leave_out(*(f"length {n}" for n in missing))
        batch = cases[-1][0]
        for choices in self.generator.independent_sizes(lengths):
            taken = [sizes for sizes in choices if self._both_take(batch, lengths[0], sizes)]
            for sizes in taken:
                yield lambda s=sizes: self.full(batch, lengths[0], sizes=s)
            if taken:
                break
            self._leave_out("dimensions of different sizes")
        if self.generator.has_mask:
            length = lengths[min(1, len(lengths) - 1)] if lengths else None
            if self._takes(batch, length, keyless=True):
                yield lambda: self.full(batch, length, keyless=True)
            else:
                self._leave_out("a row without any key")

    def _leave_out(self, *what):
        for text in what:
            self.left_out.append(f"{text}: {self._refusal}")

    def _takes(self, batch, length, sizes=None, keyless=False):
        """Whether Keras can run the model on inputs of a length."""
        inputs = self._inputs(batch, length, None, sizes, keyless)
        try:
            result = inputs, self.keras(inputs)
        except InputError as error:
            self._refusal = error
            return False
        self._tried[batch, length, tuple((sizes or {}).items()), keyless] = result
        return True

    def _both_take(self, batch, length, sizes):
        """The same for the file, too, if a size is 1: Keras may repeat an axis of this size, where
        an operator of the file needs equal sizes, and refuses others.
        """
        if not self._takes(batch, length, sizes):
            return False
        key = batch, length, tuple(sizes.items()), False
        if 1 not in sizes.values() or self._file_takes(self._tried[key][0]):
            return True
        del self._tried[key]
        shown = ", ".join(f"{name} {size}" for name, size in sizes.items())
        self.left_out.append(f"{shown}, on which the file stops: {self._refusal}")
        return False

    def _full_if_taken(self, batch, length, side):
        """The same as `full`, or None if Keras refuses these values of inputs."""
        try:
            return self.full(batch, length, side)
        except InputError as error:
            if self.generator.has_given_lengths:
                raise
            self._refusal = error
        except BundleError as error:
            # For an index beyond a table, JAX takes the nearest row, and onnxruntime stops.
            if keras.backend.backend() != "jax" or _BEYOND not in str(error):
                raise
            self._refusal = error
        self._leave_out(f"batch {batch}, length {length}")
        return None

    def full(self, batch, length, side=None, sizes=None, keyless=False):
        """One pass over whole sequences. For the arguments, see `InputGenerator.inputs`."""
        key = batch, length, tuple((sizes or {}).items()), keyless
        tried = None if side else self._tried.pop(key, None)
        inputs = tried[0] if tried else self._inputs(batch, length, side, sizes, keyless)
        expected = tried[1] if tried else self.keras(inputs)
        lengths = sizes or ({} if length is None else {"length": length})
        name = ", ".join([f"batch {batch}", *(f"{n} {size}" for n, size in lengths.items())])
        name += padded(side) + (", one row without any key" if keyless else "")
        if self._is_random:
            return self._of_moments(name, inputs, expected)
        masks = self.generator.masks(inputs)
        actual = self.ort(inputs)
        case = compare(name, expected, actual, self.precision, masks)
        if case.error > self.precision.tolerance:
            actual = without_ties(self.session.path, inputs, expected, actual)
            case = compare(name, expected, actual, self.precision, masks)
        above = math.isfinite(case.error) and case.error > self.precision.tolerance
        if self.precision.exact and above and not self.states.variables:
            case.rounding = self._rounding(inputs, expected, masks)
        return case

    @property
    def _is_random(self):
        return RANDOM in self.session.get_modelmeta().custom_metadata_map

    def _of_moments(self, name, inputs, first):
        """The `Case` of a file that draws random numbers: their moments over several runs."""
        runs = [first, *(self.keras(inputs) for _ in range(moments.RUNS - 1))]
        files = [self.ort(inputs) for _ in range(moments.RUNS)]
        errors = [
            moments.apart(
                *(np.stack([x[k] for x in xs]).astype(np.float64) for xs in (runs, files)), 1e-4
            )
            for k in first
        ]
        return Case(f"{name}, moments of {moments.RUNS} runs", max(errors))

    def _inputs(self, *how):
        """Inputs and states by name, as for `InputGenerator.inputs`."""
        return self.generator.inputs(*how) | self.states.draw(self.generator.random)

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
