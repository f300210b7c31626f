"""Graph passes that run after the trace: sharing, packing of projections, fusions."""

from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
)

from keras_seqattn.onnx.passes import (
    bias_gelu,
    packed_projections,
    residual_sum,
    transposed_weights,
)


def optimise(model, target):
    """Simplify the graph of `model` in place for a target."""
    clean = Sequential(RemoveUnusedNodesPass(), CommonSubexpressionEliminationPass())
    clean(model)
    packed_projections.apply(model.graph)
    if target.supports("BiasGelu"):
        bias_gelu.apply(model.graph)
        residual_sum.apply(model.graph)
    if target.supports("FusedMatMul"):
        transposed_weights.apply(model.graph)
    RemoveUnusedNodesPass()(model)
