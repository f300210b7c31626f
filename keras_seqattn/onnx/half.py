"""Writes a float32 graph in float16: weights, caches, and operators that are accurate in float16.

Half precision: products with weights, fused attention, lookups in tables, activations, and all
operators that only move values. Float32: normalisations and residual sums, which would lose digits
or leave the range; softmaxes, exponentials and sums over axes; every operator that is not listed
here; the bodies of loops; states, which add up over a whole text. Inputs and outputs of the model
keep their types, but key/value caches are float16. If onnxruntime has no half kernel on a CPU, it
computes in float32. So the files run there too, but not faster.
"""

import numpy as np
import onnx_ir as ir

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.passes import bounded_masks
from keras_seqattn.onnx.passes.building import initializer, insert
from keras_seqattn.onnx.passes.matching import inputs_of_role, port_of
from keras_seqattn.onnx.symbol import lazy_initializer

_FULL, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16
_LARGEST, _SMALLEST = (
    float(np.finfo(np.float16).max),
    float(np.finfo(np.float16).smallest_subnormal),
)
# Only products with weights are half precision: scores between activations may leave the range.
_PRODUCTS = {"Conv", "ConvTranspose", "FusedMatMul", "Gemm", "MatMul"}
_FUSED = {"Attention", "GroupQueryAttention"}
# The results of these operators are values of their inputs, at other places.
_MOVING = {
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Identity", "Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze", "Where",
}  # fmt: skip
_POINTWISE = {
    "Add", "BiasGelu", "Clip", "Div", "Gelu", "LeakyRelu", "Max", "Min", "Mul", "Neg", "PRelu",
    "QuickGelu", "Relu", "RotaryEmbedding", "Sigmoid", "Sub", "Sum", "Tanh",
}  # fmt: skip
_RESIDUAL = {"Add", "Sum"}
# These operators read any type, and their results do not have it.
_READING = {"Cast", "Shape", "Size"}
# Larger weights than this are stored in half precision even if the computation is in float32.
_SMALL = 1 << 12


def to_float16(model, progress=None):
    """Rewrite the float32 values of a graph, in place.

    Args:
        model: the float `onnx_ir.Model` of the exporter.
        progress: None, or a function that is called with (done, total).

    Raises:
        ExportError: a weight is too large for float16. This is raised when the weight is written.
    """
    rewriting = _Rewriting(model.graph)
    nodes = list(model.graph)
    for done, node in enumerate(nodes):
        rewriting.rewrite(node)
        if progress is not None:
            progress(done + 1, len(nodes))
    rewriting.finish()
    bounded_masks.apply(model.graph)


class _Rewriting:
    """One pass over the nodes of a graph. A value keeps one type, and a Cast gives the other."""

    def __init__(self, graph):
        self.graph = graph
        caches = inputs_of_role(graph, "cache", "source_cache")
        self.caches = [value for value in caches if value.dtype == _FULL]
        values = [*graph.inputs, *graph.initializers.values()]
        values += [value for node in graph for value in node.outputs]
        # The values that were float32 in the graph. Other types do not change.
        self.floats = {value for value in values if value.dtype == _FULL}
        # Value -> the same value in the other type.
        self.others = {}
        for cache in self.caches:
            cache.type = ir.TensorType(_HALF)
        for value in self.floats & set(graph.initializers.values()):
            # Scales of quantised weights may be smaller than float16 holds well.
            if value.const_value.size > _SMALL and not value.meta.get("scales"):
                value.const_value = _half_tensor(value, value.name)
                value.type = ir.TensorType(_HALF)

    def rewrite(self, node):
        """Give the inputs and outputs of a node the type in which it computes."""
        if node.op_type in _READING:
            return
        wanted = self._type_of(node)
        for slot, value in enumerate(node.inputs):
            if value in self.floats:
                node.replace_input_with(slot, self._typed(value, wanted, node))
        for body in _bodies(node):
            for inner in ir.traversal.RecursiveGraphIterator(body):
                for slot, value in enumerate(inner.inputs):
                    if value in self.floats:
                        inner.replace_input_with(slot, self._typed(value, _FULL, node))
        for value in node.outputs:
            if value in self.floats:
                value.type = ir.TensorType(wanted)

    def finish(self):
        """Give the outputs of the graph their types, and drop weights that no node reads."""
        presents = {port_of(value).follows for value in self.caches}
        for output in list(self.graph.outputs):
            wanted = _HALF if output.name in presents else _FULL
            if output in self.floats and output.dtype != wanted:
                self._cast_output(output, wanted)
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]
                if value in self.others:
                    self.others[value].name = name

    def _type_of(self, node):
        values = _floats(node.inputs)
        mixed = any(v not in self.floats for v in values + _floats(node.outputs))
        kind = node.op_type
        computed = [v for v in values if not _is_constant(v)]
        if mixed or not values or any(map(self._leaves_range, values)):
            return _FULL
        if kind in _FUSED or _multiplies_weight(node):
            return _HALF
        if (
            kind == "Transpose"
            and computed
            and any(map(_multiplies_computed, node.outputs[0].uses()))
        ):
            # onnxruntime fuses a Transpose with such a product. If there is a Cast between them,
            # this crashes the process.
            return _FULL
        if kind in _MOVING:
            half = any(v.dtype == _HALF for v in computed)
            return _HALF if half or (not computed and values[0].dtype == _HALF) else _FULL
        if kind in _RESIDUAL and len(computed) > 1:
            return _FULL
        half = kind in _POINTWISE and computed and all(v.dtype == _HALF for v in computed)
        return _HALF if half else _FULL

    def _leaves_range(self, value):
        """Whether a small constant would become infinite or 0 in half precision."""
        tensor = value.const_value
        if tensor is None or tensor.size > _SMALL:
            return False
        sizes = np.abs(tensor.numpy()[np.isfinite(tensor.numpy())])
        return bool(((sizes > _LARGEST) | ((sizes > 0) & (sizes < _SMALLEST))).any())

    def _typed(self, value, wanted, node):
        """The value in a type. The cast comes before the first node that needs it."""
        if value.dtype == wanted:
            return value
        if value not in self.others:
            self.others[value] = self._other(value, node)
        other = self.others[value]
        return other if other.dtype == wanted else value

    def _other(self, value, node):
        wanted = _FULL if value.dtype == _HALF else _HALF
        if value.const_value is None or value.dtype == _HALF:
            return self._cast(value, wanted, node)
        return initializer(self.graph, _half_tensor(value, f"{value.name}/float16"))

    def _cast(self, value, wanted, node):
        name = f"{value.name}/{wanted.name.lower()}"
        output = ir.Value(name=name, shape=value.shape, type=ir.TensorType(wanted))
        insert(node, "Cast", [value], {"to": int(wanted)}, name=name, outputs=[output])
        return output

    def _cast_output(self, output, wanted):
        """Let a Cast of an output take its place and its name."""
        name = output.name
        final = ir.Value(name=name, shape=output.shape, type=ir.TensorType(wanted))
        output.name = f"{name}/{output.dtype.name.lower()}"
        places = [i for i, value in enumerate(self.graph.outputs) if value is output]
        cast = ir.node("Cast", [output], {"to": int(wanted)}, outputs=[final], name=f"{name}/Cast")
        self.graph.append(cast)
        for place in places:
            self.graph.outputs[place] = final


def _bodies(node):
    return [a.value for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]


def _floats(values):
    return [v for v in values if v is not None and v.dtype in (_FULL, _HALF)]


def _is_constant(value):
    """Whether a value is known before the model runs: a constant, or a constant that is moved."""
    if value.const_value is not None:
        return True
    node = value.producer()
    return node is not None and node.op_type == "Transpose" and _is_constant(node.inputs[0])


def _multiplies_weight(node):
    known = [len(v.shape) for v in _floats(node.inputs) if _is_constant(v)]
    return node.op_type in _PRODUCTS and max(known, default=0) > 1


def _multiplies_computed(use):
    return use.node.op_type in _PRODUCTS and not _multiplies_weight(use.node)


def _half_tensor(value, name):
    """The numbers of a float32 initializer in half precision, made when they are written."""
    tensor = value.const_value

    def read():
        array = tensor.numpy()
        finite = np.abs(array[np.isfinite(array)])
        if finite.size and finite.max() > _LARGEST:
            raise ExportError(
                f"{name} holds {finite.max():g}, and float16 ends at {_LARGEST:g}: choose another "
                "precision"
            )
        return array.astype(np.float16)

    return lazy_initializer(name, tuple(tensor.shape), _HALF, read).const_value
