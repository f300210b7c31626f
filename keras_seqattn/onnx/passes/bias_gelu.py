"""Joins a bias and the exact GELU after it to onnxruntime's BiasGelu.

Pattern: Add(x, 1-D weight), then Gelu.
Condition: nothing else reads the sum, and the Gelu is not approximate.
Rewrite: BiasGelu(x, weight).
"""

from keras_seqattn.onnx.passes.building import replace_nodes
from keras_seqattn.onnx.passes.matching import is_op, is_weight, only_use


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "Add") and is_weight(node.inputs[1], 1):
            gelu = only_use(node.outputs[0])
            if is_op(gelu, "Gelu") and _exact(gelu):
                inputs = list(node.inputs)
                replace_nodes(graph, [node, gelu], "BiasGelu", inputs, domain="com.microsoft")


def _exact(gelu):
    approximate = gelu.attributes.get("approximate")
    return approximate is None or approximate.as_string() == "none"
