"""Lowerings of activations: functions of single elements that networks have between layers."""

import keras
from keras import ops

from keras_seqattn.onnx.lower.elementwise import in_result_dtype, through_ops
from keras_seqattn.onnx.lower.registry import lowers


def activation(onnx_name, attributes=lambda operation: None):
    """The lowering of an activation that is one node.

    Args:
        onnx_name: the operator.
        attributes: function of the operation -> dict.
    """

    def lowering(tracer, operation, x):
        x = in_result_dtype(tracer, operation, x)
        return tracer.emit(onnx_name, [x], attributes(operation), sizes=x.sizes, dtype=x.dtype)

    return lowering


_GELU = {True: "tanh", False: "none"}
ACTIVATIONS = {
    "Celu": ("Celu", lambda operation: {"alpha": float(operation.alpha)}),
    "Elu": ("Elu", lambda operation: {"alpha": float(operation.alpha)}),
    "Gelu": (
        "Gelu",
        lambda operation: {"approximate": "tanh" if operation.approximate else "none"},
    ),
    # Keras's hard sigmoid is relu6(x + 3) / 6.
    "HardSigmoid": ("HardSigmoid", lambda operation: {"alpha": 1 / 6, "beta": 0.5}),
    "LeakyRelu": ("LeakyRelu", lambda operation: {"alpha": float(operation.negative_slope)}),
    "Selu": ("Selu", lambda operation: None),
}
for _keras_name, (_onnx_name, _attributes) in ACTIVATIONS.items():
    lowers(_keras_name)(activation(_onnx_name, _attributes))


@lowers("Silu")
def silu(tracer, operation, x):
    """SiLU. QuickGelu with alpha 1 is the same function, and has the fastest kernel."""
    x = in_result_dtype(tracer, operation, x)
    if tracer.target.supports("QuickGelu"):
        return tracer.emit(
            "QuickGelu", [x], {"alpha": 1.0}, domain="com.microsoft", sizes=x.sizes, dtype=x.dtype
        )
    gate = tracer.emit("Sigmoid", [x], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Mul", [x, gate], sizes=x.sizes, dtype=x.dtype)


def _clip(tracer, x, low, high):
    bounds = [tracer.constant(float(b), x.dtype) for b in (low, high)]
    return tracer.emit("Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)


@lowers("ReLU")
def relu_activation(tracer, operation, x):
    """`keras.activations.relu`, which has its own class.

    With a slope and a maximum or a threshold, the slope is that of relu(threshold - x), as in
    Keras.
    """
    slope, most, threshold = operation.negative_slope, operation.max_value, operation.threshold
    if slope and most is None and not threshold:
        return ops.leaky_relu(x, slope)
    below = ops.relu(threshold - x if threshold else -x) if slope else None
    if threshold:
        x = ops.where(x > ops.cast(threshold, x.dtype), x, 0)
        x = x if most is None else ops.clip(x, 0, most)
    elif most is not None:
        x = _clip(tracer, x, 0, most) if "float" in x.dtype else ops.clip(x, 0, most)
    else:
        x = ops.relu(x)
    return x - slope * below if slope else x


@lowers("HardSilu")
def hard_silu(tracer, operation, x):
    x = in_result_dtype(tracer, operation, x)
    slope = {"alpha": 1 / 6, "beta": 0.5}
    gate = tracer.emit("HardSigmoid", [x], slope, sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Mul", [x, gate], sizes=x.sizes, dtype=x.dtype)


@lowers("Relu")
def relu(tracer, operation, x):
    """onnxruntime has no Relu of int64, and all integers are int64 here."""
    if "int" in x.dtype:
        return ops.maximum(x, 0)
    return tracer.emit("Relu", [x], sizes=x.sizes, dtype=x.dtype)


@lowers("Relu6")
def relu6(tracer, operation, x):
    return _clip(tracer, in_result_dtype(tracer, operation, x), 0, 6)


@lowers("LogSigmoid")
def log_sigmoid(tracer, operation, x):
    """log sigmoid(x) = -softplus(-x). This form does not overflow."""
    x = in_result_dtype(tracer, operation, x)
    negative = tracer.emit("Neg", [x], sizes=x.sizes, dtype=x.dtype)
    plus = tracer.emit("Softplus", [negative], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Neg", [plus], sizes=x.sizes, dtype=x.dtype)


@through_ops("Mish")
def mish(operation, x):
    return x * ops.tanh(ops.softplus(x))


@lowers("HardShrink", "SoftShrink")
def shrink(tracer, operation, x):
    """0 around 0. The node makes 0 of NaN, as TensorFlow and JAX do; PyTorch keeps NaN."""
    x = in_result_dtype(tracer, operation, x)
    limit, soft = float(operation.threshold), type(operation).__name__ == "SoftShrink"
    attributes = {"lambd": limit, "bias": limit * soft}
    result = tracer.emit("Shrink", [x], attributes, sizes=x.sizes, dtype=x.dtype)
    if keras.backend.backend() == "torch":
        return ops.where(ops.isnan(x), x, result)
    return result


@through_ops("HardTanh")
def hard_tanh(operation, x):
    return ops.clip(x, -1, 1)


@through_ops("TanhShrink")
def tanh_shrink(operation, x):
    return x - ops.tanh(x)


@through_ops("Threshold")
def threshold(operation, x):
    return ops.where(x > operation.threshold, x, ops.cast(operation.default_value, x.dtype))


@through_ops("SparsePlus")
def sparse_plus(operation, x):
    """0 up to -1, x from 1 on, and a parabola between."""
    return ops.where(x < 1, ops.square(ops.maximum(x, -1) + 1) / 4, x)


@through_ops("SparseSigmoid")
def sparse_sigmoid(operation, x):
    return ops.clip((x + 1) / 2, 0, 1)


@through_ops("Squareplus")
def squareplus(operation, x):
    return (x + ops.sqrt(ops.square(x) + operation.b)) / 2


@through_ops("Glu")
def glu(operation, x):
    value, gate = ops.split(x, 2, axis=operation.axis)
    return value * ops.sigmoid(gate)


@lowers("Sparsemax")
def sparsemax(tracer, operation, x):
    """max(x - tau, 0), as Keras computes it.

    With x sorted down and its sums S_k, the support is the k with 1 + k x_k > S_k. Keras's tau is
    the sum of all S_k of the support, less 1, by their number. In the publication (Martins and
    Astudillo 2016), it has only the last S_k.
    """
    x = in_result_dtype(tracer, operation, x)
    axis = operation.axis % len(x.sizes)
    moved = ops.moveaxis(x, axis, -1)
    length = tracer.vector([tracer.size(moved, len(x.sizes) - 1)])
    spec = [(moved.sizes, x.dtype), (moved.sizes, "int64")]
    ordered, _ = tracer.emit("TopK", [moved, length], outputs=spec)
    k = ops.cast(ops.arange(1, ops.shape(moved)[-1] + 1), x.dtype)
    sums = ops.cumsum(ordered, axis=-1)
    support = 1 + k * ordered > sums
    count = ops.sum(ops.cast(support, x.dtype), axis=-1, keepdims=True)
    total = ops.sum(ops.where(support, sums, 0), axis=-1, keepdims=True)
    return ops.moveaxis(ops.maximum(moved - (total - 1) / count, 0), -1, axis)
