"""Lets a product with a transposed weight read the weight as it is stored.

Pattern: MatMul(x, Transpose(2-D weight)), as in a head that shares the token embedding.
Condition: none.
Rewrite: onnxruntime's FusedMatMul(x, weight, transB=1). Without it, onnxruntime would make a
    second, transposed copy of the table when it loads the file.
"""

from keras_seqattn.onnx.passes.building import replace_nodes
from keras_seqattn.onnx.passes.matching import is_op, is_weight


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "MatMul"):
            transposed = node.inputs[1].producer()
            if is_op(transposed, "Transpose") and is_weight(transposed.inputs[0], 2):
                inputs = [node.inputs[0], transposed.inputs[0]]
                transpose = {"transB": 1}
                replace_nodes(graph, [node], "FusedMatMul", inputs, transpose, "com.microsoft")
