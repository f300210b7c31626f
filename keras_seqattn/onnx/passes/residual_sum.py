"""Writes residual additions as Sum if a layer normalisation follows.

onnxruntime fuses Add + LayerNormalization into SkipLayerNormalization when it loads a file. On CPU
that kernel is several times slower than the two nodes. It does not fuse Sum.

Pattern: Add, read by a LayerNormalization.
Condition: both values are computed. (A constant is a bias.)
Rewrite: Sum of the same values.
"""

from keras_seqattn.onnx.passes.building import replace_nodes
from keras_seqattn.onnx.passes.matching import is_op


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "Add") and _is_residual(node):
            replace_nodes(graph, [node], "Sum", list(node.inputs))


def _is_residual(add):
    readers = [use.node for use in add.outputs[0].uses()]
    constant = any(v.const_value is not None for v in add.inputs)
    return not constant and any(is_op(r, "LayerNormalization") for r in readers)
