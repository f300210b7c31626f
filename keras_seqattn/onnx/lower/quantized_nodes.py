"""Nodes for weights that Keras has quantised: products and lookups with the same integers.

The file holds the integers. Keras multiplies in two ways, and both are exact here:

- Float inputs with 4-bit weights: com.microsoft.MatMulNBits, where the target has it. Its accuracy
  level is 0: the faster level 4 rounds the inputs to 8 bits, which Keras does not do (an error of
  0.7 % for each product). With 2048 x 2048 weights and one thread, one row takes 0.30 ms and 128
  rows 6.6 ms, against 0.61 and 6.0 ms in float32, and 0.07 and 5.1 ms with level 4.
- Float inputs in other cases: nodes that compute the float weight, and MatMul. onnxruntime runs
  those nodes once, when it loads the file. So this is as fast as float32. DequantizeLinear is not
  among them: onnxruntime joins it with MatMul, and rounds the inputs. With 8 bits, level 0 of
  MatMulNBits takes 9 ms for one row.
- Inputs that Keras rounds to 8 bits, with a scale for each row: MatMulInteger with unsigned values
  on both sides. Signed weights of 8 bits would overflow in onnxruntime on processors with AVX2 and
  without VNNI. With weights of 4 bits that cannot happen, so those are signed, which is faster.
"""

import numpy as np
import onnx_ir as ir
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.shaping import reshape
from keras_seqattn.onnx.quantize.rounding import pack_nibbles
from keras_seqattn.onnx.symbol import Symbol, lazy_initializer

_FLOAT, _UINT8, _INT8 = ir.DataType.FLOAT, ir.DataType.UINT8, ir.DataType.INT8
_FLOAT8 = ir.DataType.FLOAT8E4M3FN
FLOAT8_MAX = 448.0
# The zero point of rounded inputs, so that -127 to 127 are unsigned.
_MIDDLE = 128


def product(tracer, x, rows):
    """`x @ weight` for float x (..., k), as float32."""
    x = cast(tracer, x, "float32")
    if rows.divisors is not None:
        x = ops.divide(x, tracer.variable(rows.divisors, "float32"))
    rows, block = _fitted(tracer, rows)
    if block is None:
        return ops.matmul(x, ops.transpose(float_rows(tracer, rows)))
    if rows.order is not None:
        x = _gather(tracer, x, tracer.constant(rows.order), -1)
    n, k = rows.shape
    attributes = {"K": k, "N": n, "bits": 4, "block_size": block}
    inputs = [x, _stored(tracer, rows), *_parameters(tracer, rows)]
    return _contrib(tracer, "MatMulNBits", inputs, attributes, (*x.sizes[:-1], n))


def rounded_inputs(x, quantizer, axis=-1):
    """(whole numbers, scale) of inputs, both float32, as AbsMaxQuantizer makes them."""
    low, high = quantizer.value_range
    largest = ops.max(ops.abs(x), axis=axis, keepdims=True)
    scale = ops.divide(float(high), ops.add(largest, float(quantizer.epsilon)))
    x = ops.multiply(x, scale)
    # The scale bounds the values by `high` on both sides.
    return (ops.maximum(x, float(low)) if low > -high else x), scale


def integer_product(tracer, x, rows, quantizer):
    """`x @ weight` with x rounded to 8 bits for each row, as float32. Rows have one scale each."""
    rows, _ = _fitted(tracer, rows)
    n = rows.shape[0]
    whole, scale = rounded_inputs(cast(tracer, x, "float32"), quantizer)
    zero, one = _scalar(tracer, _MIDDLE, _UINT8), tracer.constant(np.float32(1))
    q = _emit(tracer, "QuantizeLinear", [whole, one, zero], whole.sizes, _UINT8)
    with tracer.main_graph():
        kind = _UINT8 if rows.bits == 8 else _INT8
        weight = _joined(tracer, _values(tracer, _stored(tracer, rows), rows, kind), rows)
        weight = _emit(tracer, "Transpose", [weight], weight.sizes[::-1], kind)
    inputs = [q, weight, zero, _scalar(tracer, rows.middle, kind)]
    total = _emit(tracer, "MatMulInteger", inputs, (*x.sizes[:-1], n), ir.DataType.INT32)
    steps = _weight(tracer, rows, "steps", (n,), _FLOAT, lambda: rows.scales()[:, 0])
    return ops.divide(ops.multiply(_cast(tracer, total, _FLOAT), steps), scale)


def lookup(tracer, ids, rows):
    """The rows of a table for ids, as float32 (..., k)."""
    rows, block = _fitted(tracer, rows)
    if block is None:
        return _dequantized(tracer, rows, ids)
    n, k = rows.shape
    width = rows.groups * block
    flat = tracer.constant(np.array([n, width // 2]))
    packed = _emit(tracer, "Reshape", [_stored(tracer, rows), flat], (n, width // 2), _UINT8)
    attributes = {"bits": 4, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    inputs = [packed, ids, *_parameters(tracer, rows)]
    sizes = (*ids.sizes, width)
    found = _contrib(tracer, "GatherBlockQuantized", inputs, attributes, sizes)
    return _first(tracer, found, k)


def float_rows(tracer, rows):
    """The float weight (n, k), computed from constants. onnxruntime does so when it loads a file.

    The inputs have the order of Keras.
    """
    with tracer.main_graph():
        weight = _dequantized(tracer, rows)
        if rows.order is not None:
            weight = _gather(tracer, weight, tracer.constant(np.argsort(rows.order)), -1)
    return weight


def float_kernel(tracer, rows, shape):
    """The float weight (k, n) of Keras as a kernel of another shape."""
    weight = float_rows(tracer, rows)
    with tracer.main_graph():
        weight = ops.transpose(weight)
        if rows.divisors is not None:
            divisors = tracer.variable(rows.divisors, "float32")
            weight = ops.divide(weight, ops.expand_dims(divisors, -1))
        return reshape(tracer, weight, shape)


def scaled_kernel(tracer, variable, shape, steps):
    """A float kernel: int8 values of a variable, times steps that are broadcast.

    Args:
        variable: the Keras variable with the values.
        shape: its shape.
        steps: function () -> float32, which has the rank of the kernel.
    """
    with tracer.main_graph():
        read = lambda: ops.convert_to_numpy(variable.value)  # noqa: E731
        values = _initializer(tracer, tracer.unique_name(variable.path), shape, _INT8, read)
        return ops.multiply(_cast(tracer, values, _FLOAT), tracer.constant(steps()))


def as_float8(tracer, x):
    """Float32 values, rounded to float8_e4m3fn."""
    return _cast(tracer, _cast(tracer, x, _FLOAT8), _FLOAT)


def float8_weight(tracer, variable, read):
    """The values of `read`, which the file holds as float8_e4m3fn, as float32."""
    name, shape = tracer.unique_name(variable.path), tuple(variable.shape)
    return _cast(tracer, _initializer(tracer, name, shape, _FLOAT8, read), _FLOAT)


def _fitted(tracer, rows):
    """(the weight, its block size in onnxruntime's operators). None if they do not hold it."""
    block = rows.block_size() if tracer.target.supports("MatMulNBits") else None
    return (rows if block is None else rows.in_groups(block)), block


def _dequantized(tracer, rows, ids=None):
    """(values - zeros) * scales of all rows, or of those with some ids."""

    def chosen(x):
        return x if ids is None else _gather(tracer, x, ids, 0)

    n, count = rows.shape[0], rows.groups
    values = _values(tracer, chosen(_stored(tracer, rows)), rows, _FLOAT)
    if rows.zeros is None:
        values = ops.subtract(values, float(rows.middle))
    else:
        middles = rows.zeros[:, :, None]
        zeros = _weight(tracer, rows, "zero_points", middles.shape, _UINT8, lambda: middles)
        values = ops.subtract(values, _cast(tracer, chosen(zeros), _FLOAT))
    scales = _weight(
        tracer, rows, "group_scales", (n, count, 1), _FLOAT, lambda: rows.scales()[:, :, None]
    )
    return _joined(tracer, ops.multiply(values, chosen(scales)), rows)


# ---- the integers: (n, groups, values or pairs of values)


def _stored(tracer, rows):
    """The initializer of the integers. A lookup and a product of one table share it."""
    n, k = rows.shape
    shape = (n, rows.groups, -(-rows.group * rows.bits // 8))

    def read():
        values = np.pad(rows.read(), ((0, 0), (0, rows.groups * rows.group - k)))
        values = values.reshape(n, rows.groups, rows.group)
        return pack_nibbles(values) if rows.bits == 4 else values

    return _weight(tracer, rows, f"int{rows.bits}", shape, _UINT8, read)


def _parameters(tracer, rows):
    """The scales and zero points as operators of com.microsoft take them."""
    shape = rows.shape[0], rows.groups
    scales = _weight(tracer, rows, "scales", shape, _FLOAT, rows.scales)
    if rows.zeros is None:
        return [scales]
    zeros = pack_nibbles(rows.zeros)
    return [scales, _weight(tracer, rows, "zeros", zeros.shape, _UINT8, lambda: zeros)]


def _values(tracer, stored, rows, kind):
    """Values (..., groups, group) of stored rows, as numbers of a type that holds them."""
    if rows.bits == 8:
        return _cast(tracer, stored, kind)
    sizes = stored.sizes
    low = _emit(tracer, "BitwiseAnd", [stored, _scalar(tracer, 15, _UINT8)], sizes, _UINT8)
    right = {"direction": "RIGHT"}
    four = _scalar(tracer, 4, _UINT8)
    high = _emit(tracer, "BitShift", [stored, four], sizes, _UINT8, right)
    last = tracer.constant(np.array([-1]))
    halves = [_emit(tracer, "Unsqueeze", [x, last], (*sizes, 1), _UINT8) for x in (low, high)]
    both = _emit(tracer, "Concat", halves, (*sizes, 2), _UINT8, {"axis": -1})
    both = _reshaped(tracer, _cast(tracer, both, kind), (*sizes[:-1], 2 * sizes[-1]))
    return _first(tracer, both, rows.group)


def _joined(tracer, values, rows):
    """The groups of each row side by side, without the padding of the last one: (..., k)."""
    whole = (*values.sizes[:-2], rows.groups * rows.group)
    return _first(tracer, _reshaped(tracer, values, whole), rows.shape[1])


# ---- nodes with types that Keras does not tell apart in a graph


def _emit(tracer, op_type, inputs, sizes, kind, attributes=None):
    symbol = tracer.emit(op_type, inputs, attributes, sizes=sizes, dtype=_dtype(kind))
    symbol.value.type = ir.TensorType(kind)
    return symbol


def _contrib(tracer, op_type, inputs, attributes, sizes):
    return tracer.emit(
        op_type, inputs, attributes, domain="com.microsoft", sizes=sizes, dtype="float32"
    )


def _cast(tracer, x, kind):
    if x.value.dtype == kind:
        return x
    return _emit(tracer, "Cast", [x], x.sizes, kind, {"to": int(kind)})


def _gather(tracer, x, indices, axis):
    axis %= len(x.sizes)
    sizes = (*x.sizes[:axis], *indices.sizes, *x.sizes[axis + 1 :])
    return _emit(tracer, "Gather", [x, indices], sizes, x.value.dtype, {"axis": axis})


def _reshaped(tracer, x, sizes):
    result = reshape(tracer, x, sizes)
    result.value.type = x.value.type
    return result


def _first(tracer, x, length):
    """The first entries along the last axis."""
    if x.sizes[-1] == length:
        return x
    bounds = [tracer.constant(np.array([n])) for n in (0, length, -1)]
    return _emit(tracer, "Slice", [x, *bounds], (*x.sizes[:-1], length), x.value.dtype)


def _scalar(tracer, number, kind):
    def make():
        name = tracer.unique_name(f"constant_{kind.name.lower()}_{number}")
        return _initializer(tracer, name, (), kind, lambda: np.array(number))

    return tracer.once(("scalar", number, kind), make)


def _weight(tracer, rows, part, shape, kind, read):
    """The initializer of a part of a weight. All layers that share the weight share it."""

    def make():
        name = tracer.unique_name(f"{rows.name}/{part}")
        symbol = _initializer(tracer, name, shape, kind, read)
        symbol.value.meta["scales"] = kind == _FLOAT
        return symbol

    return tracer.once(("quantised", rows.key, part), make)


def _initializer(tracer, name, shape, kind, read):
    value = lazy_initializer(name, shape, kind, read)
    tracer.graph.register_initializer(value)
    return Symbol(value, shape, _dtype(kind))


def _dtype(kind):
    """The dtype of a Symbol, which Keras must know."""
    return kind.name.lower() if kind in (_UINT8, _INT8, ir.DataType.INT32) else "float32"
