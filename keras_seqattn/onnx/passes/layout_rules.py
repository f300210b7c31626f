"""How each operator reads a value with the channels first in place of one with them last.

Each rule is a function of the `Layouts` of `channels_first.py` and a node. It rewrites the node, or
leaves it as it is where it cannot tell.
"""

import numpy as np
import onnx_ir as ir

_MICROSOFT = "com.microsoft"
_ELEMENTWISE = """Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot
BitwiseOr BitwiseXor Cast Ceil Celu Clip Cos Cosh Div Elu Equal Erf Exp Floor Gelu Greater
GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean
Min Mish Mod Mul Neg Not Or PRelu Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh
Softplus Softsign Sqrt Sub Sum Swish Tan Tanh ThresholdedRelu Where Xor""".split()


def is_elementwise(node):
    """Whether a node works element by element, with broadcasting."""
    return RULES.get((node.domain, node.op_type)) is _elementwise


def _axis_first(axis, rank):
    """The number that an axis has with the channels first."""
    axis %= rank
    return axis if axis == 0 else 1 if axis == rank - 1 else axis + 1


def _order(rank):
    """The axes of a value with the channels last, in the order of one with them first."""
    return [0, rank - 1, *range(1, rank - 1)]


def _numbers(value):
    """list of the numbers of a constant input, or None."""
    if value is None or value.const_value is None:
        return None
    return np.atleast_1d(value.const_value.numpy()).tolist()


def _rank(node):
    return len(node.outputs[0].shape)


def _inputs_first(layouts, node, rank):
    """The inputs of an elementwise node or of a join, with the channels first, or None."""
    unknown = []
    for value in node.inputs:
        if value is None or value in layouts.first or value.const_value is not None:
            continue
        if len(value.shape) == rank:
            unknown.append(value)
        elif any(n != 1 for n in value.shape):
            return None
    known = [value for value in node.inputs if value in layouts.first]
    if any(len(value.shape) != rank for value in known):
        return None
    if unknown and not layouts.is_wanted_first(node.outputs[0]):
        return None
    return [_input_first(layouts, node, value, rank) for value in node.inputs]


def _input_first(layouts, node, value, rank):
    if value is None or (value not in layouts.first and len(value.shape) < rank):
        constant = value is not None and value.const_value is not None
        return layouts.constant(value, rank) if constant else value
    if value.const_value is not None:
        return layouts.constant(value, rank)
    return layouts.first_of(value, node)


def _elementwise(layouts, node):
    inputs = _inputs_first(layouts, node, _rank(node))
    if inputs is not None:
        layouts.replace(node, inputs)


def _join(layouts, node):
    rank = _rank(node)
    # A constant that is joined has its full shape, which must not lose leading axes.
    if any(value.const_value is not None for value in node.inputs):
        return
    inputs = _inputs_first(layouts, node, rank)
    if inputs is not None:
        layouts.replace(node, inputs, _with_axis(node, rank))


def _with_axis(node, rank):
    axis = _axis_first(node.attributes.get_int("axis", 0), rank)
    return {**node.attributes, "axis": axis}


def _along_axis(layouts, node):
    """Split, or Gather with a list of indices."""
    if node.op_type == "Gather" and len(node.inputs[1].shape) != 1:
        return
    if node.inputs[0] in layouts.first:
        inputs = [layouts.first[node.inputs[0]], *node.inputs[1:]]
        layouts.replace(node, inputs, _with_axis(node, _rank(node)))


def _with_vectors(*slots):
    """For an operator with inputs that have a number for each axis."""

    def rule(layouts, node):
        rank, source = _rank(node), node.inputs[0]
        axes = node.attributes.get("axes")
        too_many = node.op_type == "Pad" and len(node.inputs) > 3 and node.inputs[3] is not None
        if source not in layouts.first or len(source.shape) != rank or axes or too_many:
            return
        inputs = [layouts.first[source], *node.inputs[1:]]
        for slot in slots:
            vector = inputs[slot] if slot < len(inputs) else None
            if vector is None or vector.shape[0] == 0:
                continue
            parts, left = divmod(vector.shape[0], rank)
            if left:
                return
            order = np.concatenate([np.array(_order(rank)) + rank * part for part in range(parts)])
            inputs[slot] = layouts.reordered(node, vector, order)
        layouts.replace(node, inputs)

    return rule


def _slice(layouts, node):
    axes = _numbers(node.inputs[3]) if len(node.inputs) > 3 else None
    if node.inputs[0] not in layouts.first or axes is None:
        return
    axes = layouts.integers(node, "axes", [_axis_first(axis, _rank(node)) for axis in axes])
    inputs = [layouts.first[node.inputs[0]], *node.inputs[1:3], axes, *node.inputs[4:]]
    layouts.replace(node, inputs)


def _without_axes(layouts, node, axes):
    """Read the value with the channels first, if the axes that are left keep their order."""
    source = node.inputs[0]
    rank = len(source.shape)
    gone = [axis % rank for axis in axes]
    left = [_axis_first(axis, rank) for axis in range(rank) if axis not in gone]
    if left != sorted(left):
        return False
    node.replace_input_with(0, layouts.first[source])
    return True


def _reduce(layouts, node):
    source, keep = node.inputs[0], node.attributes.get_int("keepdims", 1)
    given = node.inputs[1] if len(node.inputs) > 1 else None
    axes = _numbers(given)
    if source not in layouts.first or (given is not None and axes is None):
        return
    rank = len(source.shape)
    if axes is None:
        if not keep and not node.attributes.get_int("noop_with_empty_axes", 0):
            node.replace_input_with(0, layouts.first[source])
        return
    first = layouts.integers(node, "axes", [_axis_first(axis, rank) for axis in axes])
    if keep:
        layouts.replace(node, [layouts.first[source], first])
    elif _without_axes(layouts, node, axes):
        node.replace_input_with(1, first)


def _squeeze(layouts, node):
    axes = _numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    source = node.inputs[0]
    if source in layouts.first and axes is not None and _without_axes(layouts, node, axes):
        rank = len(source.shape)
        first = [_axis_first(axis, rank) for axis in axes]
        node.replace_input_with(1, layouts.integers(node, "axes", first))


def _arg_reduce(layouts, node):
    source = node.inputs[0]
    if source not in layouts.first:
        return
    rank, axis = len(source.shape), node.attributes.get_int("axis", 0)
    attributes = _with_axis(node, rank)
    if node.attributes.get_int("keepdims", 1):
        layouts.replace(node, [layouts.first[source]], attributes)
    elif _without_axes(layouts, node, [axis]):
        node.attributes["axis"] = ir.AttrInt64("axis", attributes["axis"])


def _shape(layouts, node):
    """The length of one axis."""
    source = node.inputs[0]
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", -1)
    if start < 0 or end != start + 1:
        return
    axis = _axis_first(start, len(source.shape))
    node.replace_input_with(0, layouts.first[source])
    node.attributes["start"] = ir.AttrInt64("start", axis)
    node.attributes["end"] = ir.AttrInt64("end", axis + 1)


def _reshape(layouts, node):
    """A picture of one place has its elements in the same order in both layouts."""
    source, shape = node.inputs[0], node.inputs[1].const_value
    if source not in layouts.first or shape is None:
        return
    # A zero copies the length of the axis with the same number.
    if all(n == 1 for n in list(source.shape)[1:-1]) and 0 not in shape.numpy()[1:]:
        node.replace_input_with(0, layouts.first[source])


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
RULES = {
    **{("", name): _elementwise for name in _ELEMENTWISE},
    (_MICROSOFT, "QuickGelu"): _elementwise,
    **{("", f"Reduce{name}"): _reduce for name in _REDUCTIONS},
    **{("", name): _arg_reduce for name in ("ArgMax", "ArgMin")},
    **{("", name): _along_axis for name in ("Gather", "Split")},
    ("", "Concat"): _join,
    ("", "Expand"): _with_vectors(1),
    ("", "Pad"): _with_vectors(1),
    ("", "Reshape"): _reshape,
    ("", "Resize"): _with_vectors(1, 2, 3),
    ("", "Shape"): _shape,
    ("", "Slice"): _slice,
    ("", "Squeeze"): _squeeze,
    ("", "Tile"): _with_vectors(1),
}
