"""Runs cases: eagerly in Keras, and as a model in onnxruntime."""

import dataclasses
import functools

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.helpers import randomise
from tests.onnx.cases.inputs import INPUTS, SIZES, arrays


@dataclasses.dataclass
class Case:
    """One use of a function.

    Args:
        name: the function's public name, and a number or word if it has several cases.
        function: of the inputs.
        inputs: names in `INPUTS`.
        tolerance: of the difference, relative to the largest magnitude (at least 1).
        layer: the layer that the function calls, or None. It is built on symbolic inputs, and then
            its weights are drawn.
    """

    name: str
    function: object
    inputs: tuple
    tolerance: float = 1e-4
    layer: object = None

    def __call__(self, tensors):
        """list of tensors: what Keras computes of tensors by name. It raises errors of Keras."""
        if self.layer is not None:
            # As `predict` does it: some layers compute something else in training.
            return _flat(self.model({n: tensors[n] for n in self.inputs}, training=False))
        return _flat(self.function(*[tensors[name] for name in self.inputs]))

    @functools.cached_property
    def model(self):
        """The model of a layer, with drawn weights."""
        tensors = {name: INPUTS[name].tensor(name) for name in self.inputs}
        model = keras.Model(tensors, _flat(self.function(*tensors.values())))
        return randomise(model)


def _flat(results):
    """The tensors in what a function returns. Sizes that are ints are none."""
    return [x for x in keras.tree.flatten(results) if not isinstance(x, int)]


class _Layer(keras.layers.Layer):
    """A layer that computes cases. Its shapes are those that a run gave, not inferred ones."""

    def __init__(self, cases, outputs, **kwargs):
        super().__init__(**kwargs)
        self.cases, self.outputs = cases, outputs

    def call(self, tensors):
        made = {
            case.name: _flat(case.function(*[tensors[n] for n in case.inputs]))
            for case in self.cases
        }
        # On JAX, some sizes are ints, which are no results.
        return {name: results[: len(self.outputs[name])] for name, results in made.items()}

    def compute_output_spec(self, tensors):
        return {
            name: [keras.KerasTensor((None,) * a.ndim, keras.backend.standardize_dtype(a.dtype))
                   for a in results]
            for name, results in self.outputs.items()
        }  # fmt: skip


@dataclasses.dataclass
class Outcome:
    """What became of a case.

    Attributes:
        state: "ok", "wrong", "refused", "error" (any exception that is no ExportError), "not in
            Keras" (which raises an error itself).
        error: the largest difference, or None.
        text: what was said.
    """

    state: str
    error: float | None = None
    text: str = ""


def outcomes(cases, runs=SIZES, target="ort"):
    """dict of name -> `Outcome` of cases that are exported in one model, if they can be.

    Args:
        cases: list of `Case`.
        runs: list of sizes by the names of dimensions.
        target: of the export.
    """
    expected, found = {}, {}
    for sizes in runs:
        able = [case for case in cases if case.name not in found]
        for name, result in references(able, sizes).items():
            if isinstance(result, Exception):
                text = f"{type(result).__name__}: {str(result)[:200]}"
                found[name] = Outcome("not in Keras", text=text)
            else:
                expected.setdefault(name, []).append(result)
    able = [case for case in cases if case.name not in found]
    return found | (_compared(able, expected, runs, target) if able else {})


def references(cases, sizes):
    """dict of name -> list of arrays that Keras gives, or the exception that it raises."""
    names = {name for case in cases for name in case.inputs}
    given = {n: keras.ops.convert_to_tensor(a) for n, a in arrays(names, sizes).items()}
    compile_ = _compiled if keras.backend.backend() == "jax" else None
    if compile_ is not None:
        try:
            return compile_(cases, given)
        except Exception:
            if len(cases) > 1:
                halves = cases[: len(cases) // 2], cases[len(cases) // 2 :]
                return references(halves[0], sizes) | references(halves[1], sizes)
    return {case.name: _tried(case, given) for case in cases}


def _compiled(cases, given):
    """JAX would compile each operation for each shape. It compiles all cases together."""
    import jax

    for case in cases:
        if case.layer is not None:
            # Weights are made outside of what is compiled.
            _ = case.model
    results = jax.jit(lambda tensors: [case(tensors) for case in cases])(given)
    arrays = keras.tree.map_structure(keras.ops.convert_to_numpy, results)
    return {case.name: result for case, result in zip(cases, arrays, strict=True)}


def _tried(case, given):
    try:
        return [keras.ops.convert_to_numpy(x) for x in case(given)]
    except Exception as error:
        return error


def _compared(cases, expected, runs, target):
    state = "not in Keras"
    try:
        model = _model(cases, expected)
        state = "error"
        session = _session(model, target)
        results = [session.run(None, _feeds(session, sizes)) for sizes in runs]
    except Exception as error:
        if len(cases) > 1:
            halves = cases[: len(cases) // 2], cases[len(cases) // 2 :]
            found = [_compared(half, expected, runs, target) for half in halves]
            return found[0] | found[1]
        state = "refused" if isinstance(error, ExportError) else state
        return {cases[0].name: Outcome(state, text=f"{type(error).__name__}: {str(error)[:300]}")}
    names = [o.name for o in session.get_outputs()]
    found = {}
    for case in cases:
        error, text = 0.0, ""
        for run, wanted in zip(results, expected[case.name], strict=True):
            given = [a for n, a in zip(names, run, strict=True) if n.split("|")[0] == case.name]
            off, said = difference(wanted, given)
            if not off <= error:
                error, text = off, said
        state = "ok" if error <= case.tolerance else "wrong"
        found[case.name] = Outcome(state, error, text)
    return found


def _model(cases, expected):
    names = sorted({n for case in cases for n in case.inputs})
    tensors = {n: INPUTS[n].tensor(n) for n in names}
    if all(case.layer is not None for case in cases):
        made = {c.name: _flat(c.function(*[tensors[n] for n in c.inputs])) for c in cases}
    else:
        layer = _Layer(cases, {c.name: expected[c.name][0] for c in cases}, name="cases")
        made = layer(tensors)
    outputs = {f"{n}|{k}": x for n, xs in made.items() for k, x in enumerate(xs)}
    return keras.Model(tensors, outputs)


def _session(model, target):
    graph = build_graph(model, target, ports=[INPUTS[x.name].port(x.name) for x in model.inputs])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        ir.to_proto(graph).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _feeds(session, sizes):
    given = arrays([i.name for i in session.get_inputs()], sizes)
    types = {"tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(uint8)": "uint8"}
    return {
        i.name: given[i.name].astype(types.get(i.type, given[i.name].dtype))
        for i in session.get_inputs()
    }


_KINDS = {"i": "integer", "u": "integer", "f": "float", "b": "bool", "V": "float"}


def difference(expected, actual):
    """(the largest difference, relative to the largest magnitude or 1, what it is about)."""
    if len(expected) != len(actual):
        return np.inf, f"{len(actual)} results, {len(expected)} in Keras"
    worst, text = 0.0, ""
    for a, b in zip(expected, actual, strict=True):
        if a.shape != b.shape:
            return np.inf, f"shape {b.shape}, {a.shape} in Keras"
        if _KINDS[a.dtype.kind] != _KINDS[b.dtype.kind]:
            return np.inf, f"dtype {b.dtype}, {a.dtype} in Keras"
        a, b = np.atleast_1d(a.astype("float64")), np.atleast_1d(b.astype("float64"))
        finite = np.isfinite(a)
        other = ~finite & (a != b) & ~(np.isnan(a) & np.isnan(b))
        if other.any():
            return np.inf, _said(a, b, other)
        apart = np.abs(np.where(finite, a, 0) - np.where(finite, b, 0))
        off = apart.max(initial=0) / max(1, np.abs(a[finite]).max(initial=0))
        if not off <= worst:
            worst, text = off, _said(a, b, np.nan_to_num(apart, nan=np.inf))
    return worst, text


def _said(a, b, score):
    """The numbers where the score is the highest."""
    at = tuple(int(n) for n in np.unravel_index(np.argmax(score), a.shape))
    return f"{b[at]} in the file, {a[at]} in Keras, at {at}"
