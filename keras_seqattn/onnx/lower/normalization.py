"""Lowerings of normalisations: over a batch, a layer, groups of channels, or to unit length."""

import math

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.algebra import flat_weight
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.shaping import reshape, transpose
from keras_seqattn.onnx.sizes import is_dynamic
from keras_seqattn.onnx.symbol import DTYPES, Symbol, lazy_initializer


def _at_least_float32(tracer, x):
    """`x` in the dtype in which Keras normalises."""
    x = tracer.symbol(x)
    return cast(tracer, x, keras.backend.result_type(x.dtype, "float32"))


def _canonical(axis, rank):
    """Sorted list of axes, from 0."""
    return sorted(a % rank for a in ([axis] if isinstance(axis, int) else axis))


def _epsilon(operation):
    return keras.config.epsilon() if operation.epsilon is None else operation.epsilon


# ---- over a batch, with the statistics of the training


@lowers(keras.layers.BatchNormalization)
def batch_normalization(tracer, layer, inputs, training=None, mask=None):
    """A product and a sum, whose constants are computed when they are written. A pass puts them
    into the weights of a convolution or a Dense layer before them. The mask matters in training
    only.

    Raises:
        ExportError: the layer is called with training=True.
    """
    if training:
        raise ExportError(
            f"{tracer.where()}: it normalises with the statistics of the batch; call it with "
            "training=False"
        )
    x = _at_least_float32(tracer, inputs)
    axis = layer.axis % len(x.sizes)
    shape = (x.sizes[axis], *[1] * (len(x.sizes) - axis - 1))
    scale, shift = tracer.once(
        ("batch_normalization", id(layer), shape, x.dtype),
        lambda: [
            _of_layer(tracer, layer, name, function, shape, x.dtype)
            for name, function in (("scale", _scale), ("shift", _shift))
        ],
    )
    x = tracer.emit("Mul", [x, scale], sizes=x.sizes, dtype=x.dtype)
    x = tracer.emit("Add", [x, shift], sizes=x.sizes, dtype=x.dtype)
    return cast(tracer, x, layer.compute_dtype)


def _of_layer(tracer, layer, name, function, shape, dtype):
    name = tracer.unique_name(f"{layer.moving_mean.path.rpartition('/')[0]}/{name}")
    value = lazy_initializer(name, shape, DTYPES[dtype], lambda: function(layer).reshape(shape))
    tracer.graph.register_initializer(value)
    return Symbol(value, shape, dtype)


def _read(variable):
    return ops.convert_to_numpy(variable.value).astype(np.float64)


def _scale(layer):
    scale = 1 / np.sqrt(_read(layer.moving_variance) + layer.epsilon)
    return scale * _read(layer.gamma) if layer.scale else scale


def _shift(layer):
    shift = -_read(layer.moving_mean) * _scale(layer)
    return shift + _read(layer.beta) if layer.center else shift


@lowers("BatchNorm")
def batch_norm(tracer, operation, x, mean, variance, offset=None, scale=None):
    x = tracer.symbol(x)
    shape = [1] * len(x.sizes)
    shape[operation.axis] = mean.shape[0]
    factor = ops.rsqrt(ops.add(variance, operation.epsilon))
    factor = factor if scale is None else ops.multiply(factor, scale)
    shift = ops.negative(ops.multiply(mean, factor))
    shift = shift if offset is None else ops.add(shift, offset)
    return ops.add(ops.multiply(x, ops.reshape(factor, shape)), ops.reshape(shift, shape))


# ---- over a layer


@lowers("LayerNorm")
def layer_norm(tracer, operation, x, gamma=None, beta=None):
    if operation.rms_scaling:
        return _variance_scaling(tracer, operation, x, gamma)
    x = tracer.symbol(x)
    axes = _canonical(operation.axis, len(x.sizes))
    rest = [a for a in range(len(x.sizes)) if a not in axes]
    order = rest + axes
    moved = transpose(tracer, x, order)
    lengths = tuple(x.sizes[a] for a in axes)
    scale = _layer_scale(tracer, gamma, moved, lengths)
    shift = None if beta is None else _over_axes(tracer, beta, lengths, x.dtype)
    inputs = [moved, scale, shift]
    result = _norm(tracer, "LayerNormalization", inputs, -len(axes), _epsilon(operation))
    return transpose(tracer, result, np.argsort(order).tolist())


def _variance_scaling(tracer, operation, x, gamma):
    """The LayerNormalization of Keras with rms_scaling: x over its deviation, not centred."""
    given = tracer.symbol(x).dtype
    x = _at_least_float32(tracer, x)
    axes = _canonical(operation.axis, len(x.sizes))
    variance = ops.var(x, axis=axes, keepdims=True)
    result = ops.multiply(x, ops.rsqrt(ops.add(variance, _epsilon(operation))))
    if gamma is not None:
        shape = [n if a in axes else 1 for a, n in enumerate(x.sizes)]
        result = ops.multiply(result, _over_axes(tracer, gamma, shape, x.dtype))
    return cast(tracer, result, given)


@lowers("RMSNorm")
def rms_norm(tracer, operation, x, scale=None):
    x = tracer.symbol(x)
    axes = _canonical(operation.axis, len(x.sizes))
    if axes[-1] - axes[0] == len(axes) - 1 and axes[-1] == len(x.sizes) - 1:
        lengths = tuple(x.sizes[a] for a in axes)
        inputs = [x, _layer_scale(tracer, scale, x, lengths)]
        return _norm(tracer, "RMSNormalization", inputs, -len(axes), _epsilon(operation))
    given, x = x.dtype, _at_least_float32(tracer, x)
    square = ops.mean(ops.square(x), axis=axes, keepdims=True)
    result = ops.multiply(x, ops.rsqrt(ops.add(square, _epsilon(operation))))
    if scale is not None:
        result = ops.multiply(result, tracer.symbol(scale, x.dtype))
    return cast(tracer, result, given)


def _norm(tracer, op_type, inputs, axis, epsilon):
    """The node, computed in the widest type of its inputs. The result has the type of the first."""
    dtype = inputs[0].dtype
    wide = keras.backend.result_type(*(x.dtype for x in inputs if x is not None))
    inputs = [None if x is None else cast(tracer, x, wide) for x in inputs]
    attributes = {"axis": axis, "epsilon": float(epsilon)}
    result = tracer.emit(op_type, inputs, attributes, sizes=inputs[0].sizes, dtype=wide)
    return cast(tracer, result, dtype)


def _layer_scale(tracer, scale, x, lengths):
    """The factors of a normalisation over the last axes of `x`, whose lengths are `lengths`."""
    if scale is not None:
        return _over_axes(tracer, scale, lengths, x.dtype)
    if any(map(is_dynamic, lengths)):
        rank = len(x.sizes)
        shape = [tracer.size(x, a) for a in range(rank - len(lengths), rank)]
        return tracer.filled(shape, 1, x.dtype)
    return tracer.constant(np.ones(lengths, np.float32), x.dtype)


def _over_axes(tracer, weight, shape, dtype):
    """A weight in a shape with as many elements."""
    weight = tracer.symbol(weight, dtype)
    shape = tuple(shape)
    if weight.value.const_value is None or any(map(is_dynamic, shape)):
        return weight if weight.sizes == shape else reshape(tracer, weight, shape)
    key = ("over axes", weight.value, shape)
    return tracer.once(key, lambda: flat_weight(tracer, weight, shape))


# ---- over groups of channels


@lowers(keras.layers.GroupNormalization)
def group_normalization(tracer, layer, inputs):
    """InstanceNormalization of the groups, or of the channels if each is a group."""
    x = _at_least_float32(tracer, inputs)
    rank = len(x.sizes)
    order = list(range(rank))
    order.insert(1, order.pop(layer.axis % rank))
    x = transpose(tracer, x, order)
    channels, groups = x.sizes[1], layer.groups
    weights = [layer.gamma if layer.scale else None, layer.beta if layer.center else None]
    if groups == channels and rank > 2:
        factors = [
            tracer.constant(np.full(channels, n, np.float32), x.dtype)
            if weight is None
            else tracer.symbol(weight, x.dtype)
            for n, weight in zip((1, 0), weights, strict=True)
        ]
        x = _instances(tracer, x, factors, layer.epsilon)
    else:
        x = _grouped(tracer, x, groups, layer.epsilon)
        for op_type, weight in zip(("Mul", "Add"), weights, strict=True):
            if weight is not None:
                shape = (channels, *[1] * (rank - 2))
                each = _over_axes(tracer, weight, shape, x.dtype)
                x = tracer.emit(op_type, [x, each], sizes=x.sizes, dtype=x.dtype)
    x = transpose(tracer, x, np.argsort(order).tolist())
    if "float" not in inputs.dtype:
        # Keras makes whole numbers of the result of whole numbers.
        x = cast(tracer, x, inputs.dtype)
    return cast(tracer, x, layer.compute_dtype)


def _grouped(tracer, x, groups, epsilon):
    """`x`, with the channels on axis 1, with each group of channels normalised."""
    entries = [tracer.size(x, axis) for axis in range(len(x.sizes))]
    flat = reshape(tracer, x, (x.sizes[0], groups, math.prod(x.sizes[1:]) // groups))
    ones, zeros = (tracer.constant(np.full(groups, n, np.float32), x.dtype) for n in (1, 0))
    normed = _instances(tracer, flat, [ones, zeros], epsilon)
    return reshape(tracer, normed, x.sizes, entries)


def _instances(tracer, x, factors, epsilon):
    attributes = {"epsilon": float(epsilon)}
    inputs = [x, *factors]
    return tracer.emit("InstanceNormalization", inputs, attributes, sizes=x.sizes, dtype=x.dtype)


# ---- statistics and unit length


@lowers("Moments")
def moments(tracer, operation, x):
    """(mean, variance). Keras computes those of half floats in float32, and keeps them finite."""
    x = tracer.symbol(x)
    given = x.dtype
    if given in ("float16", "bfloat16"):
        x = cast(tracer, x, "float32")
    settings = {"axis": operation.axes, "keepdims": operation.keepdims}
    results = [ops.mean(x, **settings), ops.var(x, **settings)]
    if x.dtype != given:
        largest = float(np.finfo(np.float16).max)
        results = [cast(tracer, ops.clip(r, -largest, largest), given) for r in results]
    return tuple(results)


@lowers("Normalize")
def normalize(tracer, operation, x):
    x = tracer.symbol(x)
    x = x if x.sizes else ops.expand_dims(x, 0)
    x = x if "float" in x.dtype else cast(tracer, x, keras.config.floatx())
    epsilon, order, axis = _epsilon(operation), operation.order, operation.axis
    if order == 2:
        squares = ops.sum(ops.square(x), axis=axis, keepdims=True)
        return ops.multiply(x, ops.minimum(ops.rsqrt(squares), 1.0 / epsilon))
    if not isinstance(axis, int):
        raise ExportError(
            f"{tracer.where()}: ops.normalize over {axis} with the order {order} is a norm of a "
            "matrix; give it one axis, or use the order 2"
        )
    powers = ops.sum(ops.power(ops.absolute(x), order), axis=axis, keepdims=True)
    return ops.divide(x, ops.maximum(ops.power(powers, 1.0 / order), epsilon))
