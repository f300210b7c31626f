"""Joins projections of one input to one MatMul.

Pattern: several MatMuls with the same first input and constant 2-D weights (query, key and value;
    gate and up).
Condition: all have a bias that follows, or none has one. The weights have the same other inputs, if
    their layers are called more than once, and no other use: so each is stored once. The input is
    no Slice. A Slice is the part of a context that is not in a cache yet: its keys and values
    change their layout for the caches, and a Split would copy them once more.
Rewrite: one MatMul with the weights side by side, one Add if there were biases, and a Split. There
    is no Split if all parts go, in order, into one GroupQueryAttention, which takes them packed.
"""

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.passes.building import insert, integer_constant, like
from keras_seqattn.onnx.passes.matching import added_bias, is_op, is_weight
from keras_seqattn.onnx.symbol import joined_name, lazy_initializer


def apply(graph):
    """Rewrite `graph` in place."""
    # Weights that are packed already, because a layer may be called more than once.
    packed = {}
    for first, nodes in list(_groups(graph)):
        _pack(graph, first, nodes, packed)


def _groups(graph):
    """(first node, nodes to pack in the order in which the graph first uses their weights), ..."""
    groups, order = {}, {}
    for node in graph:
        if is_op(node, "MatMul") and is_weight(node.inputs[1], 2):
            order.setdefault(node.inputs[1], len(order))
            groups.setdefault(node.inputs[0], []).append(node)
    groups = {x: nodes for x, nodes in groups.items() if not is_op(x.producer(), "Slice")}
    readers = {}
    for x, nodes in groups.items():
        for node in nodes:
            readers.setdefault(node.inputs[1], []).append(x)
    for nodes in groups.values():
        parts = {}
        for node in nodes:
            weight = node.inputs[1]
            if len(weight.uses()) == len(readers[weight]):
                parts.setdefault(tuple(readers[weight]), []).append(node)
        for part in parts.values():
            if len(part) > 1 and _alike(part):
                yield part[0], sorted(part, key=lambda node: order[node.inputs[1]])


def _alike(nodes):
    """Whether the weights differ, and all parts have a bias, or none has one."""
    biased = {added_bias(n.outputs[0])[0] is not None for n in nodes}
    return len(biased) == 1 and len({n.inputs[1] for n in nodes}) == len(nodes)


def _pack(graph, first, nodes, packed):
    weights = [n.inputs[1] for n in nodes]
    widths = [w.shape[1] for w in weights]
    weight = _side_by_side(graph, packed, weights)
    # A layer that is called again has its weights already; its nodes need names of their own.
    again = weight.uses()
    name = f"{weight.name}/call_{len(again)}" if again else weight.name
    lead = list(first.outputs[0].shape)[:-1]
    product = _node(first, "MatMul", [first.inputs[0], weight], name, [*lead, sum(widths)])
    ends = [n.outputs[0] for n in nodes]
    adds = [added_bias(end) for end in ends]
    if adds[0][0] is not None:
        bias = _side_by_side(graph, packed, [bias for _, bias in adds])
        product = _node(first, "Add", [product, bias], name + "/bias", [*lead, sum(widths)])
        ends = [add.outputs[0] for add, _ in adds]
    if not _into_group_query_attention(product, ends):
        _split(graph, first, product, ends, widths, name)
    removed = [add for add, _ in adds if add is not None] + nodes
    graph.remove([n for n in removed if not any(o.uses() for o in n.outputs)], safe=True)


def _side_by_side(graph, packed, values):
    """An initializer that joins others along their last axis, when it is written."""
    key = tuple(values)
    if key not in packed:
        name = joined_name([v.name for v in values])
        while name in graph.initializers:
            name += "_1"
        tensors = [v.const_value for v in values]
        shape = (*values[0].shape[:-1], sum(v.shape[-1] for v in values))
        packed[key] = lazy_initializer(
            name,
            shape,
            values[0].dtype,
            lambda: np.concatenate([t.numpy() for t in tensors], axis=-1),
        )
        graph.register_initializer(packed[key])
    return packed[key]


def _node(before, op_type, inputs, name, shape):
    name = f"{name}/{op_type}"
    output = like(name, before.outputs[0], ir.Shape(shape))
    insert(before, op_type, inputs, name=name, outputs=[output])
    return output


def _into_group_query_attention(packed, ends):
    users = {use.node for end in ends for use in end.uses()}
    if len(users) != 1 or len(ends) != 3 or any(end.is_graph_output() for end in ends):
        return False
    node = users.pop()
    if not is_op(node, "GroupQueryAttention", "com.microsoft") or list(node.inputs[:3]) != ends:
        return False
    node.replace_input_with(0, packed)
    node.replace_input_with(1, None)
    node.replace_input_with(2, None)
    return True


def _split(graph, before, packed, ends, widths, name):
    sizes = integer_constant(graph, f"{name}/lengths", widths)
    names = [
        end.name if end.is_graph_output() else f"{name}/Split_{i}" for i, end in enumerate(ends)
    ]
    parts = [like(part, end) for part, end in zip(names, ends, strict=True)]
    insert(before, "Split", [packed, sizes], {"axis": -1}, name=f"{name}/Split", outputs=parts)
    ir.convenience.replace_all_uses_with(ends, parts, replace_graph_outputs=True)
