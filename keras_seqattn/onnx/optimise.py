"""Graph passes that run after the trace: sharing, packing of projections, fusions."""

from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
)

from keras_seqattn.onnx.passes import (
    bias_gelu,
    bounded_masks,
    compact_padding,
    packed_projections,
    residual_sum,
    sigmoid_digits,
    skip_rms_norm,
    transposed_weights,
    widen_floats,
)

# Each with the operator that a target must have for it, or None. The order matters: projections
# are packed into an attention node only once it does the rotation itself. residual_sum works around
# a fusion of onnxruntime's own, so that it goes with onnxruntime's operators.
_PASSES = (
    (compact_padding, "GroupQueryAttention"),
    (packed_projections, None),
    (bias_gelu, "BiasGelu"),
    (skip_rms_norm, "SkipSimplifiedLayerNormalization"),
    (residual_sum, "BiasGelu"),
    (transposed_weights, "FusedMatMul"),
    (sigmoid_digits, None),
    (bounded_masks, "GroupQueryAttention"),
)


def optimise(model, target):
    """Simplify the graph of `model` in place for a target."""
    widen_floats.apply(model.graph, target)
    clean = Sequential(RemoveUnusedNodesPass(), CommonSubexpressionEliminationPass())
    clean(model)
    for rewrite, needs in _PASSES:
        if needs is None or target.supports(needs):
            rewrite.apply(model.graph)
            RemoveUnusedNodesPass()(model)
