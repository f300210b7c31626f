"""Limits additive masks to values above minus infinity, where the kernel would give NaN.

If a row sees no key, onnxruntime's half kernel of GroupQueryAttention gives NaN, and so does the
float32 kernel with a soft-cap. The float32 kernel without one gives zeros.

Pattern: GroupQueryAttention with an additive mask.
Condition: the mask is float16 or there is a soft-cap, and the mask has no limit yet.
Rewrite: the maximum of the mask and a number. Scores are much smaller than that, and the sum with a
    score stays in the range of the type.
"""

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.passes.building import constant, insert, like
from keras_seqattn.onnx.passes.matching import is_op

_MASK = 10
_LOWEST = {
    ir.DataType.FLOAT16: np.float16(-(2.0**14)),
    ir.DataType.FLOAT: np.float32(-(2.0**99)),
}


def apply(graph):
    """Rewrite `graph` in place."""
    bounded, lowest = {}, {}
    for node in list(graph):
        if not is_op(node, "GroupQueryAttention", "com.microsoft") or len(node.inputs) <= _MASK:
            continue
        mask = node.inputs[_MASK]
        if mask is None or mask.dtype not in _LOWEST or is_op(mask.producer(), "Max"):
            continue
        if mask.dtype == ir.DataType.FLOAT and "softcap" not in node.attributes:
            continue
        if mask not in bounded:
            if mask.dtype not in lowest:
                number = np.array(_LOWEST[mask.dtype])
                lowest[mask.dtype] = constant(graph, "bounded_masks/lowest", number)
            name = f"{mask.name}/bounded"
            inputs, outputs = [mask, lowest[mask.dtype]], [like(name, mask)]
            (bounded[mask],) = insert(node, "Max", inputs, name=name, outputs=outputs)
        node.replace_input_with(_MASK, bounded[mask])
