"""Graph passes that run after the trace: sharing, packing of projections, fusions."""

from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
)

from keras_seqattn.onnx.passes import (
    bias_gelu,
    bounded_masks,
    channels_first,
    compact_padding,
    folded_weights,
    missing_kernels,
    own_rms_norms,
    packed_projections,
    padded_windows,
    residual_sum,
    sigmoid_digits,
    skip_rms_norm,
    transposed_weights,
    widen_floats,
)

# Each pass with the operator that the target must have for it, or None. The order matters:
# projections are packed into an attention node only after the rotation is in the node.
# residual_sum works around a fusion of onnxruntime, so it needs the operators of onnxruntime.
_PASSES = (
    (channels_first, None),
    (padded_windows, None),
    (folded_weights, None),
    (compact_padding, "GroupQueryAttention"),
    (packed_projections, None),
    (bias_gelu, "BiasGelu"),
    (own_rms_norms, None),
    (skip_rms_norm, "SkipSimplifiedLayerNormalization"),
    (residual_sum, "BiasGelu"),
    (transposed_weights, "FusedMatMul"),
    (sigmoid_digits, None),
    (bounded_masks, "GroupQueryAttention"),
)


def optimise(model, target):
    """Simplify the graph of `model` in place for a target."""
    widen_floats.apply(model.graph, target)
    missing_kernels.apply(model.graph)
    clean = Sequential(RemoveUnusedNodesPass(), CommonSubexpressionEliminationPass())
    clean(model)
    for rewrite, needs in _PASSES:
        if needs is None or target.supports(needs):
            rewrite.apply(model.graph)
            RemoveUnusedNodesPass()(model)
