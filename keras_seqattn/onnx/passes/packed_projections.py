"""Joins projections of one input to one MatMul.

Pattern: several MatMuls with the same first input and constant 2-D weights (query, key and value;
    gate and up).
Condition: all have a bias that follows, or none has one. The graph returns none of them. The input
    is no Slice. A Slice is the part of a context that is not in a cache yet: its keys and values
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
    for count, nodes in enumerate(_groups(graph)):
        _pack(graph, nodes, packed, count)


def _groups(graph):
    groups = {}
    for node in graph:
        if is_op(node, "MatMul") and is_weight(node.inputs[1], 2):
            groups.setdefault(node.inputs[0], []).append(node)
    groups = {x: nodes for x, nodes in groups.items() if not is_op(x.producer(), "Slice")}
    return [nodes for nodes in groups.values() if len(nodes) > 1 and _alike(nodes)]


def _alike(nodes):
    """Whether all parts have a bias, or none has one. Packing needs that."""
    biased = [added_bias(n.outputs[0])[0] is not None for n in nodes]
    returned = any(n.outputs[0].is_graph_output() for n in nodes)
    return not returned and (all(biased) or not any(biased))


def _pack(graph, nodes, packed, count):
    weights = [n.inputs[1] for n in nodes]
    name = joined_name([w.name for w in weights])
    widths = [w.shape[1] for w in weights]
    again = name in packed
    weight = _side_by_side(graph, packed, name, weights)
    first = nodes[0]
    name = f"{name}_{count}" if again else name
    lead = list(first.outputs[0].shape)[:-1]
    product = _node(first, "MatMul", [first.inputs[0], weight], name, [*lead, sum(widths)])
    ends = [n.outputs[0] for n in nodes]
    adds = [added_bias(end) for end in ends]
    if adds[0][0] is not None:
        biases = [bias for _, bias in adds]
        bias = _side_by_side(graph, packed, joined_name([b.name for b in biases]), biases)
        product = _node(first, "Add", [product, bias], name + "/bias", [*lead, sum(widths)])
        ends = [add.outputs[0] for add, _ in adds]
    if not _into_group_query_attention(product, ends):
        _split(graph, first, product, ends, widths, name)
    removed = [add for add, _ in adds if add is not None] + nodes
    graph.remove([n for n in removed if not any(o.uses() for o in n.outputs)], safe=True)


def _side_by_side(graph, packed, name, values):
    """An initializer that joins others along their last axis, when it is written."""
    if name in packed:
        return packed[name]
    tensors = [v.const_value for v in values]
    shape = (*values[0].shape[:-1], sum(v.shape[-1] for v in values))
    joined = lazy_initializer(
        name, shape, values[0].dtype, lambda: np.concatenate([t.numpy() for t in tensors], axis=-1)
    )
    graph.register_initializer(joined)
    packed[name] = joined
    return joined


def _node(before, op_type, inputs, name, shape):
    name = f"{name}/{op_type}"
    output = like(name, before.outputs[0], ir.Shape(shape))
    insert(before, op_type, inputs, name=name, outputs=[output])
    return output


def _into_group_query_attention(packed, ends):
    users = {use.node for end in ends for use in end.uses()}
    if len(users) != 1 or len(ends) != 3:
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
    parts = [like(f"{name}/Split_{i}", end) for i, end in enumerate(ends)]
    insert(before, "Split", [packed, sizes], {"axis": -1}, name=f"{name}/Split", outputs=parts)
    ir.convenience.replace_all_uses_with(ends, parts)
