"""Sigmoid and SiLU keep the digits of their small values where something may enlarge these.

onnxruntime's Sigmoid and QuickGelu are right to some 1e-7 of the largest value: of what they give
for -10 they have four digits, and for -15 and less none. A normalisation makes a thousand times as
much of that: gated delta and state-space layers with small heads were up to 0.09 away from Keras
and from float64. Exp has all digits, but four nodes take two to six times as long as one.

Pattern: float32 Sigmoid, or QuickGelu with alpha 1.
Condition: some reader, behind products and reshapes, is none of a matrix product, a convolution, a
    sum and the graph's output, which are what a feed-forward layer does with it.
Rewrite: 1 / (1 + exp(-x)), or x over that sum.
"""

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.passes.building import constant, insert, like, replace_nodes
from keras_seqattn.onnx.passes.matching import is_op

# These add many values up, so that the errors of small ones do not count.
_SUMS = {"Add", "Conv", "FusedMatMul", "Gemm", "MatMul", "Sum"}
# These hand the error on as it is.
_PASSED_ON = {"Mul", "Reshape"}


def apply(graph):
    """Rewrite `graph` in place."""
    one = None
    for node in list(graph):
        if _is_logistic(node) and not _is_summed(node.outputs[0]):
            one = one or constant(graph, "sigmoid_digits/one", np.ones((), np.float32))
            _replace(graph, node, one)


def _is_logistic(node):
    if node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    quick = is_op(node, "QuickGelu", "com.microsoft")
    return is_op(node, "Sigmoid") or (quick and node.attributes.get_float("alpha", 1.702) == 1.0)


def _is_summed(value):
    nodes = [use.node for use in value.uses()]
    return all(
        node.op_type in _SUMS or (node.op_type in _PASSED_ON and _is_summed(node.outputs[0]))
        for node in nodes
    )


def _replace(graph, node, one):
    """`1 / (1 + exp(-x))`, or x over that sum, where infinity is the right sum for small x."""
    x, total = node.inputs[0], node.inputs[0]
    for op_type, others in (("Neg", []), ("Exp", []), ("Add", [one])):
        name = f"{node.name}/{op_type}"
        (total,) = insert(node, op_type, [total, *others], name=name, outputs=[like(name, x)])
    if node.op_type == "Sigmoid":
        replace_nodes(graph, [node], "Reciprocal", [total])
    else:
        replace_nodes(graph, [node], "Div", [x, total])
