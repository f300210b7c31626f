"""Keeps data that has the channels last in the layout of the convolutions, with them on axis 1.

The lowerings put a Transpose before and after each convolution, pooling and so on. This pass goes
through the graph in order. It knows for some values the value with the channels first, of which
they are a transposition.

Pattern: a node that reads such a value.
Condition: the node is in the table: elementwise operators, joins, splits, paddings, slices,
    reductions and so on. Other inputs are constants, or known as well, or full tensors that are
    worth a transposition of their own, because a convolution needs the result.
Rewrite: the node reads the values with the channels first, with its axes and constants changed,
    and a Transpose makes the old result of the new one. Nobody may read it, and then it is removed
    later. Two transpositions after each other become one or none.

In the end, transpositions are left where a node is not in the table (a Dense layer, a flattening of
pictures), and at the inputs and outputs of the model.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.building import constant, insert, integer_constant
from keras_seqattn.onnx.passes.layout_rules import RULES, is_elementwise
from keras_seqattn.onnx.passes.matching import is_op
from keras_seqattn.onnx.symbol import lazy_initializer

_SPATIAL = {"AveragePool", "Conv", "ConvTranspose", "DepthToSpace", "GlobalAveragePool",
            "GlobalMaxPool", "InstanceNormalization", "MaxPool", "SpaceToDepth"}  # fmt: skip


def apply(graph):
    """Rewrite `graph` in place. Without convolutions and the like, it does not change."""
    if not any(is_op(node, node.op_type) and node.op_type in _SPATIAL for node in graph):
        return
    for node in list(graph):
        _fold_reshaped_vector(graph, node)
    layouts = Layouts(graph)
    for node in list(graph):
        layouts.visit(node)


def _fold_reshaped_vector(graph, node):
    """Make the Reshape of a vector of weights, such as a bias, an initializer."""
    source = node.inputs[0] if is_op(node, "Reshape") else None
    if source is None or source.const_value is None or len(source.shape) != 1:
        return
    result = node.outputs[0]
    shape = list(result.shape)
    if result.is_graph_output() or not all(isinstance(n, int) for n in shape):
        return
    tensor = source.const_value
    value = lazy_initializer(
        f"{source.name}/{result.name}", shape, source.dtype, lambda: tensor.numpy().reshape(shape)
    )
    graph.register_initializer(value)
    ir.convenience.replace_all_uses_with(result, value)
    graph.remove(node, safe=True)


def to_last(rank):
    """The permutation that puts axis 1 last. It is also the axis of each axis, channels first."""
    return [0, *range(2, rank), 1]


def to_first(rank):
    """The permutation that puts the last axis on axis 1."""
    return [0, rank - 1, *range(1, rank - 1)]


class Layouts:
    """What is known of the layouts of values, and edits for the rules.

    Attributes:
        graph: the `onnx_ir.Graph`.
        first: dict of value with the channels last -> the same with the channels first.
    """

    def __init__(self, graph):
        self.graph, self.first = graph, {}
        self._constants, self._wanted = {}, {}

    def visit(self, node):
        """Rewrite one node, if a value that it reads is known and the node is in the table."""
        if any(v is not None and v.shape is None for v in (*node.inputs, *node.outputs)):
            return
        if _permutation(node) is not None:
            self._transpose(node)
            return
        rule = RULES.get((node.domain, node.op_type))
        if rule is not None and any(value in self.first for value in node.inputs):
            rule(self, node)

    def _transpose(self, node):
        source, result = node.inputs[0], node.outputs[0]
        perm, rank = _permutation(node), len(source.shape)
        if perm == to_first(rank) and self._has_first(source) and not result.is_graph_output():
            ir.convenience.replace_all_uses_with(result, self.first_of(source, node))
            return
        if source in self.first:
            perm = [to_last(rank)[axis] for axis in perm]
            node.replace_input_with(0, self.first[source])
            node.attributes["perm"] = ir.AttrInt64s("perm", perm)
        if perm == to_last(rank):
            self.first[result] = node.inputs[0]

    def _has_first(self, value):
        return value in self.first or _takes_a_shape(value.producer())

    def first_of(self, value, before):
        """The value with the channels first. If it is not known, a node before `before` makes it: a
        Transpose, or the same node as that of the value, if only its shape has to change."""
        if value not in self.first:
            rank = len(value.shape)
            shape = ir.Shape([value.shape[axis] for axis in to_first(rank)])
            made = ir.Value(name=f"{value.name}/channels_first", shape=shape, type=value.type)
            producer = value.producer()
            if _takes_a_shape(producer):
                lengths = self.reordered(producer, producer.inputs[1], to_first(rank))
                inputs = [producer.inputs[0], lengths]
                insert(producer, producer.op_type, inputs, name=made.name, outputs=[made])
            else:
                perm = {"perm": ir.AttrInt64s("perm", to_first(rank))}
                insert(before, "Transpose", [value], perm, name=made.name, outputs=[made])
            self.first[value] = made
        return self.first[value]

    def constant(self, value, rank):
        """An initializer that is broadcast to `rank` axes, with the channels first."""
        if all(n == 1 for n in value.shape):
            return value
        key = (value, rank)
        if key not in self._constants:
            whole = [1] * (rank - len(value.shape)) + list(value.shape)
            shape = [whole[axis] for axis in to_first(rank)]
            while len(shape) > 1 and shape[0] == 1:
                shape.pop(0)
            tensor = value.const_value
            made = lazy_initializer(
                f"{value.name}/channels_first_{rank}", shape, value.dtype,
                lambda: tensor.numpy().reshape(whole).transpose(to_first(rank)).reshape(shape),
            )  # fmt: skip
            self.graph.register_initializer(made)
            self._constants[key] = made
        return self._constants[key]

    def integers(self, node, name, numbers):
        """An int64 initializer for a node."""
        return integer_constant(self.graph, f"{node.name}/{name}", list(numbers))

    def reordered(self, node, vector, order):
        """A vector with its elements in another order."""
        order = list(order)
        key = (vector, *order)
        if key not in self._constants:
            name = f"{vector.name}/channels_first_{len(order)}"
            if vector.const_value is not None:
                made = constant(self.graph, name, vector.const_value.numpy()[order])
            else:
                made = ir.Value(name=name, shape=vector.shape, type=vector.type)
                inputs = [vector, self.integers(node, "order", order)]
                insert(node, "Gather", inputs, {"axis": 0}, name=name, outputs=[made])
            self._constants[key] = made
        return self._constants[key]

    def is_wanted_first(self, value):
        """Whether a node that needs the channels first comes after elementwise nodes, or none."""
        if value not in self._wanted:
            self._wanted[value] = False
            nodes = [use.node for use in value.uses()]
            self._wanted[value] = any(
                _is_to_first(node) or (is_elementwise(node) and self.is_wanted_first(out))
                for node in nodes
                for out in node.outputs
            )
        return self._wanted[value]

    def replace(self, node, inputs, attributes=None):
        """Put a node with the same operator in place of `node`, for the channels first."""
        attributes = dict(node.attributes) if attributes is None else attributes
        made = []
        for old in node.outputs:
            shape = ir.Shape([old.shape[axis] for axis in to_first(len(old.shape))])
            name = f"{old.name}/channels_first"
            made.append(ir.Value(name=name, shape=shape, type=old.type))
        insert(node, node.op_type, inputs, attributes, node.domain, name=node.name, outputs=made)
        for old, new in zip(node.outputs, made, strict=True):
            last = ir.Value(name=old.name, shape=old.shape, type=old.type)
            perm = {"perm": ir.AttrInt64s("perm", to_last(len(old.shape)))}
            insert(node, "Transpose", [new], perm, name=f"{old.name}/channels_last", outputs=[last])
            ir.convenience.replace_all_uses_with(old, last, replace_graph_outputs=True)
            self.first[last] = new
        self.graph.remove(node, safe=True)


def _permutation(node):
    """list of ints of a Transpose, or None."""
    perm = node.attributes.get("perm") if is_op(node, "Transpose") else None
    return None if perm is None else list(perm.as_ints())


def _is_to_first(node):
    perm = _permutation(node)
    return perm is not None and perm == to_first(len(perm))


def _takes_a_shape(node):
    """Whether a node gives the same elements for a shape in another order: an Expand of one number,
    or a Reshape to pictures of one place."""
    if is_op(node, "Expand"):
        return all(n == 1 for n in node.inputs[0].shape)
    if not is_op(node, "Reshape") or len(node.outputs[0].shape) < 3:
        return False
    shape = node.inputs[1].const_value
    middle = list(node.outputs[0].shape)[1:-1]
    # A zero copies the length of the axis with the same number.
    return shape is not None and all(n == 1 for n in middle) and 0 not in shape.numpy()[1:]
