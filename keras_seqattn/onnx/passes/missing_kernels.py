"""Computes in float32 where onnxruntime has no kernel for another float type.

Pattern: a node of the standard domain with float64 or float16 operands.
Condition: no CPU kernel of onnxruntime, or no type of the operator, takes them. Measured with
onnxruntime 1.32, by making a session of each operator.
Rewrite: casts to float32 before the node, and back after it.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.building import insert

_FLOAT = ir.DataType.FLOAT
_NO_FLOAT64 = frozenset(
    """Acos Acosh Asin Asinh Atan Atanh AveragePool Celu Conv ConvTranspose Cosh Det Elu Erf Gelu
    GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish Hardmax InstanceNormalization LRN
    LeakyRelu LpPool MeanVarianceNormalization Mish PRelu RNN Selu Sinh Softplus Softsign Tan
    ThresholdedRelu""".split()
)
_MISSING = {ir.DataType.DOUBLE: _NO_FLOAT64, ir.DataType.FLOAT16: frozenset({"Celu"})}


def apply(graph):
    """Rewrite `graph` and its bodies in place."""
    for node in list(ir.traversal.RecursiveGraphIterator(graph)):
        if node.domain:
            continue
        for kind, operators in _MISSING.items():
            if node.op_type in operators:
                _widen(node, kind)


def _widen(node, kind):
    for slot, value in enumerate(node.inputs):
        if value is not None and value.dtype == kind:
            node.replace_input_with(slot, _cast(node, value, _FLOAT, f"{node.name}/input_{slot}"))
    for value in node.outputs:
        if value.dtype == kind:
            _cast_back(node, value, kind)


def _cast(before, value, kind, name):
    output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
    return insert(before, "Cast", [value], {"to": int(kind)}, name=name, outputs=[output])[0]


def _cast_back(node, value, kind):
    """Let a Cast after the node take the place of its result."""
    name = f"{value.name}/cast"
    result = ir.Value(name=name, shape=value.shape, type=ir.TensorType(kind))
    ir.convenience.replace_all_uses_with(value, result, replace_graph_outputs=True)
    cast = ir.node("Cast", [value], {"to": int(kind)}, outputs=[result], name=name)
    node.graph.insert_after(node, cast)
    value.type = ir.TensorType(_FLOAT)
    value.name, result.name = f"{value.name}/float32", value.name
