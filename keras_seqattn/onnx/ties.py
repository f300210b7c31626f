"""Indices of equal numbers: if several numbers are the largest, each of them is a right answer."""

import os

import numpy as np
import onnx_ir as ir
import onnxruntime

# The nodes that choose among numbers, and the place of the indices among their outputs.
_CHOICES = {"TopK": 1, "ArgMax": 0, "ArgMin": 0}
# Operators that hand indices on, in the same order.
_MOVES = frozenset(["Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"])
# Numbers that differ by less, relative to the largest, are equal up to the rounding of float32.
_ROUNDING = 1e-5


def without_ties(path, inputs, expected, actual):
    """The outputs of a file, in which an index is that of Keras if its number is equal.

    Args:
        path: the file.
        inputs: dict of name -> array.
        expected, actual: dicts of output name -> array, of Keras and of the file.
    """
    different = [n for n, a in expected.items() if a.dtype.kind in "iu" and _differ(a, actual[n])]
    if not different:
        return actual
    model = ir.load(path)
    chosen = {}
    for value in model.graph.outputs:
        if value.name in different and (node := _choice(value)) is not None:
            chosen[value.name] = node
    if not chosen:
        return actual
    numbers = _values(model, path, {node.inputs[0].name for node in chosen.values()}, inputs)
    equal = {
        name: _untied(node, numbers[node.inputs[0].name], expected[name], actual[name])
        for name, node in chosen.items()
    }
    return {**actual, **equal}


def _differ(a, b):
    return a.shape == b.shape and not np.array_equal(a, b)


def _choice(value):
    """The node whose indices an output is, or None."""
    node = value.producer()
    while node is not None and node.op_type in _MOVES:
        value = node.inputs[0]
        node = value.producer()
    place = None if node is None else _CHOICES.get(node.op_type)
    return None if place is None or node.outputs.index(value) != place else node


def _values(model, path, names, inputs):
    """Values inside the graph, by name."""
    given = {name: inputs[name] for name in names if name in inputs}
    known = {value.name for value in model.graph.outputs} | given.keys()
    inner = [v for node in model.graph for v in node.outputs if v.name in names - known]
    model.graph.outputs.extend(inner)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    folder = os.path.dirname(os.path.abspath(path))
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    graph = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = {i.name: inputs[i.name] for i in session.get_inputs()}
    wanted = sorted(names - given.keys())
    values = dict(zip(wanted, session.run(wanted, feeds), strict=True)) if wanted else {}
    return {name: value.astype(np.float64) for name, value in (given | values).items()}


def _untied(node, numbers, expected, actual):
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else _default_axis(node)
    shape = [*numbers.shape]
    rest = expected.size // max(1, numbers.size // numbers.shape[axis])
    shape[axis] = rest
    a, b = (x.reshape(shape).astype(np.int64) for x in (expected, actual))
    if not numbers.size or (a < 0).any() or (a >= numbers.shape[axis]).any():
        return actual
    x, y = (np.take_along_axis(numbers, indices, axis) for indices in (a, b))
    finite = np.abs(numbers[np.isfinite(numbers)]).max(initial=1.0)
    with np.errstate(invalid="ignore"):
        same = (x == y) | (np.abs(x - y) <= _ROUNDING * finite) | (np.isnan(x) & np.isnan(y))
    return np.where(same, a, b).reshape(actual.shape).astype(actual.dtype)


def _default_axis(node):
    return -1 if node.op_type == "TopK" else 0
