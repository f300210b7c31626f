"""A bias and the exact GELU that follows it become onnxruntime's BiasGelu.

Pattern: Add(x, 1-D weight) read only by Gelu(approximate="none").
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.matching import is_op, is_weight, only_use


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "Add") and is_weight(node.inputs[1], 1):
            gelu = only_use(node.outputs[0])
            if is_op(gelu, "Gelu") and _exact(gelu):
                _fuse(graph, node, gelu)


def _exact(gelu):
    approximate = gelu.attributes.get("approximate")
    return approximate is None or approximate.as_string() == "none"


def _fuse(graph, add, gelu):
    output = gelu.outputs[0]
    fused = ir.node(
        "BiasGelu", list(add.inputs), domain="com.microsoft", name=gelu.name,
        outputs=[ir.Value(name=output.name, shape=output.shape, type=output.type)],
    )  # fmt: skip
    graph.insert_before(add, fused)
    ir.convenience.replace_all_uses_with(output, fused.outputs[0], replace_graph_outputs=True)
    graph.remove([gelu, add], safe=True)
