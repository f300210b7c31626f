"""Limits additive masks in half precision to values above minus infinity.

If a row sees no key, onnxruntime's half kernel of GroupQueryAttention gives NaN. The float32 kernel
gives zeros.

Pattern: GroupQueryAttention with an additive mask.
Condition: the mask is float16, and has no limit yet.
Rewrite: the maximum of the mask and -16384. Scores are much smaller than that, and the sum with a
    score stays in the range of float16.
"""

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.passes.building import constant, insert, like
from keras_seqattn.onnx.passes.matching import is_op

_MASK, _LOWEST = 10, np.float16(-(2.0**14))


def apply(graph):
    """Rewrite `graph` in place."""
    bounded, lowest = {}, None
    for node in list(graph):
        if not is_op(node, "GroupQueryAttention", "com.microsoft") or len(node.inputs) <= _MASK:
            continue
        mask = node.inputs[_MASK]
        if mask is None or mask.dtype != ir.DataType.FLOAT16 or is_op(mask.producer(), "Max"):
            continue
        if mask not in bounded:
            lowest = lowest or constant(graph, "bounded_masks/lowest", np.array(_LOWEST))
            name = f"{mask.name}/bounded"
            outputs = [like(name, mask)]
            (bounded[mask],) = insert(node, "Max", [mask, lowest], name=name, outputs=outputs)
        node.replace_input_with(_MASK, bounded[mask])
