"""Joins a residual addition and the RMS normalisation after it.

Pattern: Add of two non-constant values, read by an RMSNormalization over the last axis.
Condition: both values have the same shape, because the fused kernel does not broadcast.
Rewrite: one SkipSimplifiedLayerNormalization. Other readers of the sum, such as the next residual
    addition, read its copy of the sum.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.building import insert, like
from keras_seqattn.onnx.passes.matching import is_op, is_weight


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "Add") and all(v.const_value is None for v in node.inputs):
            norms = [use.node for use in node.outputs[0].uses()]
            norm = next((n for n in norms if _is_last_axis_norm(n)), None)
            if norm is not None and _same_shape(node):
                _fuse(graph, node, norm)


def _is_last_axis_norm(node):
    """Whether the fused kernel can take a norm. It has no form for float64."""
    known = is_op(node, "RMSNormalization") and is_weight(node.inputs[1], 1)
    return known and node.inputs[1].dtype != ir.DataType.DOUBLE


def _same_shape(add):
    """Whether both values have the same shape. The fused kernel does not broadcast."""
    a, b = (v.shape for v in add.inputs)
    return a is not None and b is not None and list(a) == list(b)


def _fuse(graph, add, norm):
    total, normed = add.outputs[0], norm.outputs[0]
    unused = (ir.Value(name=""), ir.Value(name=""))
    outputs = [like(normed.name, normed), *unused, like(total.name, total)]
    insert(
        add,
        "SkipSimplifiedLayerNormalization",
        [*add.inputs, norm.inputs[1]],
        {"epsilon": norm.attributes.get_float("epsilon", 1e-5)},
        "com.microsoft",
        name=norm.name,
        outputs=outputs,
    )
    new = [outputs[0], outputs[3]]
    ir.convenience.replace_all_uses_with([normed, total], new, replace_graph_outputs=True)
    graph.remove([norm, add], safe=True)
