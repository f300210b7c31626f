"""Lowerings that combine many elements: matrix products, reductions, norms, softmax."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import binary, cast, of_numbers, operands
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape
from keras_seqattn.onnx.symbol import Symbol, lazy_initializer

REDUCE = {
    "Sum": "ReduceSum", "Mean": "ReduceMean", "Max": "ReduceMax", "Amax": "ReduceMax",
    "Min": "ReduceMin", "Amin": "ReduceMin", "Prod": "ReduceProd", "Logsumexp": "ReduceLogSumExp",
}  # fmt: skip


@lowers("Matmul")
def matmul(tracer, operation, x1, x2):
    sizes, dtype = tracer.output_spec(operation, (x1, x2), {})
    both = operands(tracer, (x1, x2), dtype)
    return of_numbers(tracer, "MatMul", both, sizes=sizes, dtype=dtype)


@lowers("Einsum")
def einsum(tracer, operation, *xs):
    sizes, dtype = tracer.output_spec(operation, xs, {})
    xs = operands(tracer, xs, dtype)
    as_product = _projection(operation.subscripts, xs)
    if as_product:
        return _project(tracer, xs[0], xs[1], as_product, sizes)
    equation = {"equation": operation.subscripts}
    return tracer.emit("Einsum", xs, equation, sizes=sizes, dtype=dtype)


def _projection(subscripts, xs):
    """The number of contracted axes, and the order of the axes of w, if this is `x @ w` over the
    last axes of x, else None. Weights may have their axes in any order."""
    if (
        len(xs) != 2
        or "->" not in subscripts
        or "." in subscripts
        or xs[1].value.const_value is None
    ):
        return None
    inputs, output = subscripts.replace(" ", "").split("->")
    left, right = inputs.split(",")
    n = sum(c in right for c in left)
    kept, made = left[: len(left) - n], output[len(left) - n :]
    contracted = left[len(kept) :]
    fits = n and output.startswith(kept) and not set(kept) & set(right)
    if not fits or sorted(contracted + made) != sorted(right) or len(set(right)) != len(right):
        return None
    return n, tuple(right.index(c) for c in contracted + made)


def _project(tracer, x, weight, projection, sizes):
    """An einsum that is a linear map, as one MatMul with a 2-D view of the weight."""
    contracted, order = projection
    shape = [weight.sizes[axis] for axis in order]
    rows, columns = math.prod(shape[:contracted]), math.prod(shape[contracted:])
    flat = tracer.once(
        ("flat", weight.value, order),
        lambda: flat_weight(tracer, weight, (rows, columns), order),
    )
    lead = x.sizes[: len(x.sizes) - contracted]
    x = reshape(tracer, x, (*lead, rows))
    product = tracer.emit("MatMul", [x, flat], sizes=(*lead, columns), dtype=x.dtype)
    return reshape(tracer, product, sizes)


@lowers("Add")
def add(tracer, operation, x1, x2):
    """Addition. If a reshape has just split the axes of a bias, it is added before the split."""
    sides = [tracer.symbol(x) if isinstance(x, (Symbol, keras.Variable)) else x for x in (x1, x2)]
    for x, bias in (sides, sides[::-1]):
        if _is_split_bias(x, bias):
            whole = x.reshaped_from
            flat = _flat_bias(tracer, bias)
            total = tracer.emit("Add", [whole, flat], sizes=whole.sizes, dtype=x.dtype)
            return reshape(tracer, total, x.sizes)
    return binary("Add")(tracer, operation, x1, x2)


def _flat_bias(tracer, bias):
    width = math.prod(bias.sizes)
    return tracer.once(("flat", bias.value), lambda: flat_weight(tracer, bias, (width,)))


def _is_split_bias(x, bias):
    if not isinstance(x, Symbol) or not isinstance(bias, Symbol) or x.reshaped_from is x:
        return False
    lead = len(x.sizes) - len(bias.sizes)
    constant = bias.value.const_value is not None and bias.dtype == x.dtype
    return constant and len(bias.sizes) > 1 and (
        x.sizes == (*x.reshaped_from.sizes[:lead], *bias.sizes)
        and x.reshaped_from.sizes[lead:] == (math.prod(bias.sizes),)
    )  # fmt: skip


def flat_weight(tracer, weight, shape, order=None):
    """The same initializer with another shape, made when it is written.

    Args:
        order: None, or the axes of the weight in the order that they have before the reshape.
    """
    order = tuple(range(len(weight.sizes))) if order is None else order
    if weight.sizes == shape and list(order) == sorted(order):
        return weight
    source = weight.value.const_value
    name = tracer.unique_name(weight.value.name + "/flat")
    value = lazy_initializer(
        name, shape, source.dtype, lambda: source.numpy().transpose(order).reshape(shape)
    )
    tracer.graph.register_initializer(value)
    return Symbol(value, shape, weight.dtype)


def reduction(onnx_name):
    def lowering(tracer, operation, x):
        x = tracer.symbol(x)
        sizes, dtype = tracer.output_spec(operation, (x,), {})
        axes = _axes(operation.axis)
        x = cast(tracer, x, dtype)
        keep = {"keepdims": int(bool(operation.keepdims))}
        inputs = [x, _axes_input(tracer, axes)]
        return of_numbers(tracer, onnx_name, inputs, keep, sizes=sizes, dtype=dtype)

    return lowering


for _keras_name, _onnx_name in REDUCE.items():
    lowers(_keras_name)(reduction(_onnx_name))


def _axes(axis):
    if axis is None:
        return None
    return [axis] if isinstance(axis, (int, np.integer)) else list(axis)


def _axes_input(tracer, axes):
    return None if axes is None else tracer.constant(np.array(axes, np.int64))


@lowers("Any", "All")
def any_all(tracer, operation, x):
    """Logical reductions. ONNX has none, so this takes the maximum or the minimum of 0 and 1."""
    sizes, _ = tracer.output_spec(operation, (x,), {})
    name = "ReduceMax" if type(operation).__name__ == "Any" else "ReduceMin"
    x = cast(tracer, cast(tracer, x, "bool"), "int32")
    keep = {"keepdims": int(bool(operation.keepdims))}
    axes = _axes_input(tracer, _axes(operation.axis))
    return cast(tracer, tracer.emit(name, [x, axes], keep, sizes=sizes, dtype="int32"), "bool")


@lowers("Argmax", "Argmin")
def arg_reduce(tracer, operation, x):
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    if operation.axis is None:
        raise ExportError(f"{tracer.where()}: ops.argmax needs an axis to be exported")
    name = "ArgMax" if type(operation).__name__ == "Argmax" else "ArgMin"
    attributes = {"axis": operation.axis, "keepdims": int(bool(operation.keepdims))}
    return of_numbers(tracer, name, [x], attributes, sizes=sizes, dtype=dtype)


@lowers("Var", "Std")
def variance(tracer, operation, x):
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    x = cast(tracer, tracer.symbol(x), dtype)
    axes = _axes_input(tracer, _axes(operation.axis))
    keep = [
        1 if operation.axis is None or i in [a % len(x.sizes) for a in _axes(operation.axis)] else n
        for i, n in enumerate(x.sizes)
    ]
    mean = tracer.emit("ReduceMean", [x, axes], {"keepdims": 1}, sizes=keep, dtype=dtype)
    centred = tracer.emit("Sub", [x, mean], sizes=x.sizes, dtype=dtype)
    squared = tracer.emit("Mul", [centred, centred], sizes=x.sizes, dtype=dtype)
    attributes = {"keepdims": int(bool(operation.keepdims))}
    result = tracer.emit("ReduceMean", [squared, axes], attributes, sizes=sizes, dtype=dtype)
    if type(operation).__name__ == "Std":
        return tracer.emit("Sqrt", [result], sizes=sizes, dtype=dtype)
    return result


@lowers("Cumsum")
def cumsum(tracer, operation, x):
    if operation.axis is None:
        raise ExportError(f"{tracer.where()}: ops.cumsum needs an axis to be exported")
    sizes, dtype = tracer.output_spec(operation, (x,), {})
    axis = tracer.constant(np.int64(operation.axis))
    return tracer.emit("CumSum", [cast(tracer, x, dtype), axis], sizes=sizes, dtype=dtype)


@lowers("Softmax", "LogSoftmax")
def softmax(tracer, operation, x):
    if not isinstance(operation.axis, int):
        raise ExportError(f"{tracer.where()}: softmax over several axes cannot be exported")
    return tracer.emit(
        type(operation).__name__, [x], {"axis": operation.axis}, sizes=x.sizes, dtype=x.dtype
    )


@lowers(keras.layers.Softmax)
def masked_softmax(tracer, layer, inputs, mask=None):
    """The Softmax layer of Keras. Masked positions get 0, even if all positions are masked."""
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if mask is None:
        return ops.softmax(inputs, axis=axis)
    mask = ops.cast(mask, "bool")
    large = 3e4 if inputs.dtype == "float16" else 1e9
    probabilities = ops.softmax(ops.where(mask, inputs, -large), axis=axis)
    return ops.where(mask, probabilities, 0.0)


def _last_axis(tracer, operation, x):
    axes = [a % len(x.sizes) for a in _axes(operation.axis)]
    if axes != list(range(min(axes), len(x.sizes))):
        raise ExportError(
            f"{tracer.where()}: normalisation over axes {axes} cannot be exported, because they "
            "are not the last ones"
        )
    return min(axes) - len(x.sizes)


@lowers("LayerNorm")
def layer_norm(tracer, operation, x, gamma=None, beta=None):
    axis = _last_axis(tracer, operation, x)
    epsilon = _epsilon(operation)
    scale = _scale(tracer, gamma, x, axis)
    if operation.rms_scaling:
        raise ExportError(
            f"{tracer.where()}: LayerNormalization(rms_scaling=True) cannot be exported; use "
            "RMSNormalization"
        )
    inputs = [x, scale, None if beta is None else tracer.symbol(beta, x.dtype)]
    return _norm(tracer, "LayerNormalization", inputs, axis, epsilon)


@lowers("RMSNorm")
def rms_norm(tracer, operation, x, scale=None):
    axis = _last_axis(tracer, operation, x)
    epsilon = _epsilon(operation)
    inputs = [x, _scale(tracer, scale, x, axis)]
    return _norm(tracer, "RMSNormalization", inputs, axis, epsilon)


def _norm(tracer, op_type, inputs, axis, epsilon):
    """The node, computed in the widest type of its inputs. The result has the type of the first."""
    dtype = inputs[0].dtype
    wide = keras.backend.result_type(*(x.dtype for x in inputs if x is not None))
    inputs = [None if x is None else cast(tracer, x, wide) for x in inputs]
    attributes = {"axis": axis, "epsilon": float(epsilon)}
    result = tracer.emit(op_type, inputs, attributes, sizes=inputs[0].sizes, dtype=wide)
    return cast(tracer, result, dtype)


def _epsilon(operation):
    return keras.config.epsilon() if operation.epsilon is None else operation.epsilon


def _scale(tracer, scale, x, axis):
    if scale is None:
        shape = [tracer.size(x, a) for a in range(len(x.sizes) + axis, len(x.sizes))]
        if not all(isinstance(n, int) for n in shape):
            return tracer.filled(shape, 1, x.dtype)
        return tracer.constant(np.ones(shape, np.float32), x.dtype)
    return tracer.symbol(scale, x.dtype)


@lowers("TopK")
def top_k(tracer, operation, x):
    specs = tracer.output_spec(operation, (x,), {})
    k = tracer.constant(np.array([operation.k]))
    attributes = {"sorted": int(operation.sorted)}
    return tuple(tracer.emit("TopK", [x, k], attributes, outputs=[(s, d) for s, d in specs]))
