"""Puts products and sums with one constant per channel into the weights before them.

Batch normalisation at inference is such a product and sum, and so is the bias of a Keras layer.

Pattern: Conv, ConvTranspose, or MatMul with a 2-D weight; then Mul, Div, Add and Sub nodes with
    constants, each the only reader of the value before it.
Condition: each constant has one element, or one per channel. All are float32 or float64, whose
    digits and range are enough for the products. For MatMul, there is a product, and no other
    node reads the weight.
Rewrite: one node with other weights and one bias, which are computed in float64 when they are
    written. MatMul has its bias as an Add.
"""

import dataclasses

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.passes.building import insert, like, replace_nodes
from keras_seqattn.onnx.passes.matching import is_op, is_weight, only_use
from keras_seqattn.onnx.symbol import lazy_initializer

_FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE}
# The axis of the channels of the result, in the weight and in the result.
_AXES = {"Conv": (0, 1), "ConvTranspose": (1, 1), "MatMul": (1, -1)}
_STEPS = {"Add": np.add, "Div": np.divide, "Mul": np.multiply, "Sub": np.subtract}
_PRODUCTS = {"Div", "Mul"}


def apply(graph):
    """Rewrite `graph` in place."""
    # Folded weights by what they are made of: a layer may be called more than once.
    made = {}
    for node in list(graph):
        if node.op_type in _AXES and is_op(node, node.op_type):
            chain = _chain(node)
            if chain is not None:
                _fold(graph, chain, made)


@dataclasses.dataclass
class _Chain:
    """A product and the nodes behind it: list of (node, constant)."""

    node: ir.Node
    steps: list

    @property
    def weight(self):
        return self.node.inputs[1]

    @property
    def bias(self):
        return self.node.inputs[2] if len(self.node.inputs) > 2 else None

    @property
    def scales(self):
        return any(step.op_type in _PRODUCTS for step, _ in self.steps)

    def factors(self):
        """(factor, sum) per channel, float64, or of one element."""
        factor = np.ones(1)
        bias = np.zeros(1) if self.bias is None else _read(self.bias)
        for step, constant in self.steps:
            number = _read(constant).reshape(-1)
            bias = _STEPS[step.op_type](bias, number)
            if step.op_type in _PRODUCTS:
                factor = _STEPS[step.op_type](factor, number)
        return factor, bias


def _read(value):
    return value.const_value.numpy().astype(np.float64)


def _chain(node):
    weight = node.inputs[1]
    axis, channel = _AXES[node.op_type]
    is_conv = node.op_type != "MatMul"
    if not is_weight(weight, len(node.outputs[0].shape) if is_conv else 2):
        return None
    values = [weight, *(v for v in node.inputs[2:] if v is not None)]
    if any(v.dtype not in _FLOATS or v.const_value is None for v in values):
        return None
    if is_op(node, "ConvTranspose") and node.attributes.get_int("group", 1) != 1:
        return None
    chain = _Chain(node, list(_steps(node, weight.shape[axis], channel)))
    if is_conv:
        return chain if chain.steps else None
    return chain if chain.scales and len(weight.uses()) == 1 else None


def _steps(node, channels, axis):
    value = node.outputs[0]
    rank = len(value.shape)
    while True:
        step = only_use(value)
        if step is None or step.op_type not in _STEPS or step.domain:
            return
        first, second = step.inputs
        ordered = first is value or step.op_type in ("Add", "Mul")
        constant = second if first is value else first
        if not ordered or not _is_per_channel(constant, channels, axis % rank, rank):
            return
        if constant.dtype != value.dtype:
            return
        yield step, constant
        value = step.outputs[0]


def _is_per_channel(constant, channels, axis, rank):
    if constant.const_value is None or len(constant.shape) > rank:
        return False
    shape = [1] * (rank - len(constant.shape)) + list(constant.shape)
    return all(n == 1 or (n == channels and i == axis) for i, n in enumerate(shape))


def _fold(graph, chain, made):
    node = chain.node
    axis = _AXES[node.op_type][0]
    key = (chain.weight, chain.bias, *((s.op_type, c) for s, c in chain.steps))
    if key not in made:
        made[key] = _weights(graph, chain, axis)
    weight, bias = made[key]
    old = [node, *(step for step, _ in chain.steps)]
    inputs = [node.inputs[0], weight]
    if node.op_type != "MatMul":
        replace_nodes(graph, old, node.op_type, [*inputs, bias], dict(node.attributes))
        return
    name = f"{node.name}/product"
    product = like(name, node.outputs[0])
    insert(node, "MatMul", inputs, name=name, outputs=[product])
    replace_nodes(graph, old, "Add", [product, bias])


def _weights(graph, chain, axis):
    """The weight and the bias, which are made when they are written."""
    old, dtype = chain.weight, chain.weight.dtype
    shape = list(old.shape)
    along = [1] * len(shape)
    along[axis] = -1
    weight = old
    if chain.scales:
        weight = lazy_initializer(
            f"{old.name}/folded", shape, dtype,
            lambda: (_read(old) * chain.factors()[0].reshape(along)).astype(dtype.numpy()),
        )  # fmt: skip
        _register(graph, weight)
    bias = lazy_initializer(
        f"{old.name}/folded_bias", [shape[axis]], dtype,
        lambda: np.broadcast_to(chain.factors()[1], shape[axis]).astype(dtype.numpy()),
    )  # fmt: skip
    _register(graph, bias)
    return weight, bias


def _register(graph, value):
    """Register an initializer under a name of its own."""
    name, count = value.name, 0
    while value.name in graph.initializers:
        count += 1
        value.name = f"{name}_{count}"
    graph.register_initializer(value)
