"""Keeps the digits of small values of Sigmoid and SiLU, if a later operator may enlarge them.

The error of onnxruntime's Sigmoid and QuickGelu is about 1e-7 of the largest value. So the result
for -10 has four correct digits, and for -15 and less it has none. A normalisation can make this
error a thousand times larger: gated delta and state-space layers with small heads differed by up to
0.09 from Keras and from float64. Exp has all digits, but four nodes take two to six times as long
as one.

Pattern: float32 Sigmoid, or QuickGelu with alpha 1.
Condition: after products and operators that move values, at least one reader is not a matrix
    product, a convolution, a sum, a mean or the output of the graph. (A feed-forward layer and a
    convolutional network have only these.)
Rewrite: 1 / (1 + exp(-x)), or x divided by that sum.
"""

import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.passes.building import constant, insert, like, replace_nodes
from keras_seqattn.onnx.passes.matching import is_op

# These operators add many values, so the errors of small values do not count.
_SUMS = {"Add", "AveragePool", "Conv", "ConvTranspose", "FusedMatMul", "Gemm",
         "GlobalAveragePool", "MatMul", "ReduceMean", "ReduceSum", "Sum"}  # fmt: skip
# These operators pass the error on and do not change it.
_PASSED_ON = {"Concat", "MaxPool", "Mul", "Pad", "Reshape", "Squeeze", "Transpose"}


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
    """`1 / (1 + exp(-x))`, or x over that sum. For very small x, the sum is infinity; this is
    right."""
    x, total = node.inputs[0], node.inputs[0]
    for op_type, others in (("Neg", []), ("Exp", []), ("Add", [one])):
        name = f"{node.name}/{op_type}"
        (total,) = insert(node, op_type, [total, *others], name=name, outputs=[like(name, x)])
    if node.op_type == "Sigmoid":
        replace_nodes(graph, [node], "Reciprocal", [total])
    else:
        replace_nodes(graph, [node], "Div", [x, total])
