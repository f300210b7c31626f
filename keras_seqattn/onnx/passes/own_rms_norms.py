"""Makes one node of an RMS normalisation that a layer computes step by step.

Many models, such as those of keras-hub, do not use Keras's layer.

Pattern: x * (1 / sqrt(mean(x ** 2) + epsilon)) * scale, with x * x for the square or not.
Condition: the mean is over the last axis, which stays. Epsilon is a constant, scale has one axis of
    the same length, and no other node reads what is between.
Rewrite: one RMSNormalization.
"""

import numpy as np

from keras_seqattn.onnx.passes.building import replace_nodes
from keras_seqattn.onnx.passes.matching import is_op, only_use


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "Reciprocal"):
            _rewrite(graph, node)


def _rewrite(graph, reciprocal):
    root = reciprocal.inputs[0].producer()
    total = root.inputs[0].producer() if is_op(root, "Sqrt") else None
    mean, epsilon = _operands(total, "Add", lambda v: _number(v) is not None)
    mean = None if mean is None else mean.producer()
    if mean is None or not _is_last_axis_mean(mean):
        return
    square = mean.inputs[0].producer()
    x = _squared(square)
    product, scaling = only_use(reciprocal.outputs[0]), None
    if x is not None and is_op(product, "Mul") and x in product.inputs:
        scaling = only_use(product.outputs[0])
    _, scale = _operands(scaling, "Mul", lambda v: v is not product.outputs[0])
    nodes = [square, mean, total, root, reciprocal, product]
    if scale is None or list(scale.shape or ()) != [x.shape[-1]]:
        return
    if any(only_use(node.outputs[0]) is None for node in nodes):
        return
    attributes = {"epsilon": float(_number(epsilon)), "axis": -1}
    # The new node comes where the last one was: the scale may be computed between.
    _replace(graph, [*nodes, scaling], [x, scale], attributes)


def _replace(graph, nodes, inputs, attributes):
    replace_nodes(graph, nodes[-1:], "RMSNormalization", inputs, attributes)
    graph.remove(nodes[-2::-1], safe=True)


def _operands(node, op_type, is_second):
    """The two inputs of a node, the second one as described, or (None, None)."""
    if is_op(node, op_type) and len(node.inputs) == 2:
        a, b = node.inputs
        for first, second in ((a, b), (b, a)):
            if is_second(second):
                return first, second
    return None, None


def _squared(node):
    """x, if the node computes x * x or x ** 2."""
    if is_op(node, "Mul") and node.inputs[0] is node.inputs[1]:
        return node.inputs[0]
    return node.inputs[0] if is_op(node, "Pow") and _number(node.inputs[1]) == 2 else None


def _is_last_axis_mean(node):
    if not is_op(node, "ReduceMean") or node.attributes.get_int("keepdims", 1) != 1:
        return False
    axes = node.inputs[1] if len(node.inputs) > 1 else None
    shape = node.inputs[0].shape
    if axes is None or axes.const_value is None or shape is None:
        return False
    return axes.const_value.numpy().tolist() in ([-1], [len(shape) - 1])


def _number(value):
    """The content of a constant with one element, or None."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return np.asarray(value.const_value.numpy()).reshape(())
