"""A product with a transposed weight reads the weight as it is stored.

Pattern: MatMul(x, Transpose(2-D weight)), as a head that shares the token embedding has it.
Result: onnxruntime's FusedMatMul(x, weight, transB=1), where a load would otherwise make a second,
    transposed
copy of the table.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.matching import is_op, is_weight


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "MatMul"):
            transposed = node.inputs[1].producer()
            if is_op(transposed, "Transpose") and is_weight(transposed.inputs[0], 2):
                _rewrite(graph, node, transposed.inputs[0])


def _rewrite(graph, node, weight):
    old = node.outputs[0]
    new = ir.Value(name=old.name, shape=old.shape, type=old.type)
    fused = ir.node(
        "FusedMatMul",
        [node.inputs[0], weight],
        {"transB": 1},
        domain="com.microsoft",
        outputs=[new],
        name=node.name,
    )
    graph.insert_before(node, fused)
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
