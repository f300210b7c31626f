"""Makes float32 of values whose float type the target does not compute in.

No CPU kernel of onnxruntime computes in bfloat16. So a model with a bfloat16 policy keeps the
values of its weights, which float32 holds exactly, and computes in float32. This is more exact than
Keras.

Pattern: values, casts and tensors of a float type.
Condition: the target does not compute in that type.
Rewrite: the same with float32. Casts to the type that a value has already are removed. Float64
    stays, but operators without a float64 kernel in onnxruntime get casts around them.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.building import insert, like
from keras_seqattn.onnx.passes.matching import is_op
from keras_seqattn.onnx.symbol import DTYPES, lazy_initializer

_FLOAT, _DOUBLE = ir.DataType.FLOAT, ir.DataType.DOUBLE
_WITHOUT_DOUBLE = {"Erf", "Gelu"}
_TYPES = {name: DTYPES[name] for name in ("float16", "bfloat16", "float64")}


def apply(graph, target):
    """Rewrite `graph` and its bodies in place."""
    narrow = {kind for name, kind in _TYPES.items() if name not in target.floats}
    for value in _values(graph):
        if value.dtype in narrow:
            if value.const_value is not None:
                value.const_value = _widened(value.const_value)
            value.type = ir.TensorType(_FLOAT)
    for node in ir.traversal.RecursiveGraphIterator(graph):
        for name, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in narrow:
                node.attributes[name] = ir.AttrTensor(name, _widened(attribute.value))
        if is_op(node, "Cast") and node.attributes["to"].value in narrow:
            node.attributes["to"] = ir.AttrInt64("to", int(_FLOAT))
            _drop_cast(node)
        if node.op_type in _WITHOUT_DOUBLE and node.inputs[0].dtype == _DOUBLE:
            _compute_in_float32(node)


def _compute_in_float32(node):
    """Put casts around a node with one input and one output."""
    source, result = node.inputs[0], node.outputs[0]
    narrow = ir.Value(name=f"{node.name}/float32", shape=source.shape, type=ir.TensorType(_FLOAT))
    before = {"to": int(_FLOAT)}
    insert(node, "Cast", [source], before, name=narrow.name, outputs=[narrow])
    inner = ir.Value(name=f"{node.name}/result", shape=result.shape, type=ir.TensorType(_FLOAT))
    insert(node, node.op_type, [narrow], node.attributes, name=inner.name, outputs=[inner])
    wide = like(result.name, result)
    insert(node, "Cast", [inner], {"to": int(_DOUBLE)}, name=f"{node.name}/float64", outputs=[wide])
    ir.convenience.replace_all_uses_with(result, wide, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)


def _values(graph):
    yield from (*graph.inputs, *graph.initializers.values())
    for node in ir.traversal.RecursiveGraphIterator(graph):
        yield from node.outputs
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield from (*attribute.value.inputs, *attribute.value.initializers.values())


def _widened(tensor):
    shape = tuple(tensor.shape)
    return lazy_initializer(tensor.name, shape, _FLOAT, tensor.numpy).const_value


def _drop_cast(node):
    source, result = node.inputs[0], node.outputs[0]
    if source.dtype == _FLOAT and not result.is_graph_output():
        ir.convenience.replace_all_uses_with(result, source)
        node.graph.remove(node, safe=True)
