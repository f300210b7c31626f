"""Lowerings that work element by element: casts, arithmetic of floats, comparisons, logic."""

import math

import keras
import ml_dtypes
import numpy as np
import onnx_ir as ir

from keras_seqattn.onnx.bounds import LIMITS, fits
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.symbol import DTYPES, Symbol

UNARY = {
    "Absolute": "Abs", "Abs": "Abs", "Arccos": "Acos", "Arccosh": "Acosh", "Arcsin": "Asin",
    "Arcsinh": "Asinh", "Arctan": "Atan", "Arctanh": "Atanh", "Ceil": "Ceil", "Cos": "Cos",
    "Cosh": "Cosh", "Erf": "Erf", "Exp": "Exp", "Fabs": "Abs", "Floor": "Floor", "Log": "Log",
    "Negative": "Neg", "Reciprocal": "Reciprocal", "Sigmoid": "Sigmoid",
    "Sin": "Sin", "Sinh": "Sinh", "Softplus": "Softplus", "Softsign": "Softsign", "Sqrt": "Sqrt",
    "Tan": "Tan", "Tanh": "Tanh",
}  # fmt: skip
BINARY = {
    "Add": "Add", "Divide": "Div", "Maximum": "Max", "Minimum": "Min", "Multiply": "Mul",
    "Subtract": "Sub", "TrueDivide": "Div",
}  # fmt: skip
COMPARE = {
    "Equal": "Equal", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "Less": "Less",
    "LessEqual": "LessOrEqual",
}  # fmt: skip
LOGICAL = {"LogicalAnd": "And", "LogicalNot": "Not", "LogicalOr": "Or", "LogicalXor": "Xor"}
OF_FLOATS = {
    "Isinf": ("IsInf", {}),
    "Isnan": ("IsNaN", {}),
    "Isneginf": ("IsInf", {"detect_positive": 0}),
    "Isposinf": ("IsInf", {"detect_negative": 0}),
}
# Keras says that these give the type of their argument. Of integers, they give floats.
_GIVE_FLOATS = set(
    """Celu Elu Erf Erfc Erfinv Gelu HardShrink HardSigmoid HardSilu LeakyRelu LogSigmoid LogSoftmax
    Logsumexp Normalize Reciprocal Relu6 Rsqrt Selu Sigmoid Silu Softmax Softplus Softsign
    SoftShrink SparsePlus SparseSigmoid Sparsemax Squareplus TanhShrink""".split()
)
_WIDER = {"int32": "int64", "float32": "float64"}


def cast(tracer, x, dtype):
    """`x` in another dtype.

    A cast between integers is a node only if a value may not fit: then it wraps. A float that does
    not fit into an integer type of 8 or 16 bits becomes what the backend makes of it: JAX takes the
    nearest integer of the type, and 0 for NaN, others wrap. For larger types, only JAX defines it.
    """
    if x.dtype == dtype:
        return x
    if "int" in x.dtype and "int" in dtype:
        if fits(x.bounds, dtype):
            return x.view(dtype)
        return tracer.wrapped(Symbol(x.value, x.sizes, dtype))
    if "float" in x.dtype and dtype in ("int8", "int16", "uint8", "uint16"):
        return _narrow(tracer, x, dtype)
    return tracer.emit("Cast", [x], {"to": int(DTYPES[dtype])}, sizes=x.sizes, dtype=dtype)


def _narrow(tracer, x, dtype):
    if keras.backend.backend() != "jax":
        return cast(tracer, cast(tracer, x, "int64"), dtype)
    low, high = LIMITS[dtype]
    if x.dtype == "float16":  # whose largest number is less than the largest integer
        x = cast(tracer, x, "float32")
    bounds = [tracer.constant(float(n), x.dtype) for n in (low, high)]
    nan = tracer.emit("IsNaN", [x], sizes=x.sizes, dtype="bool")
    zero = tracer.constant(0.0, x.dtype)
    x = tracer.emit("Where", [nan, zero, x], sizes=x.sizes, dtype=x.dtype)
    x = tracer.emit("Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Cast", [x], {"to": int(DTYPES[dtype])}, sizes=x.sizes, dtype=dtype)


def int32(tracer, x):
    """`x` as a true int32 value, for the few operator inputs that may not be int64."""
    to = {"to": int(ir.DataType.INT32)}
    return as_int32(tracer.emit("Cast", [x], to, sizes=x.sizes, dtype="int32"))


def as_int32(symbol):
    """Declare that the value of a symbol is int32 in the file, too."""
    symbol.value.type = ir.TensorType(ir.DataType.INT32)
    return symbol


def operands(tracer, args, dtype):
    """All of `args` as Symbols of one dtype."""
    return [cast(tracer, tracer.symbol(a, dtype), dtype) for a in args]


def dtype_of(x):
    """The dtype of an argument, or the Python type of a number."""
    return keras.backend.standardize_dtype(x.dtype) if hasattr(x, "dtype") else type(x)


def common_dtype(args):
    """The dtype in which Keras would compare or combine the arguments."""
    types = [dtype_of(x) for x in _sizes_as_ints(args)]
    dtype = keras.backend.result_type(*types)
    # With PyTorch, Keras says that 64 bits become 32.
    return _WIDER[dtype] if _WIDER.get(dtype) in types else dtype


def _sizes_as_ints(args):
    """The arguments as Keras has them: sizes are ints there, and beside tensors they have no type.

    In the graph, they are tensors of int64.
    """
    sizes = [isinstance(x, Symbol) and x.number is not None for x in args]
    if all(is_size or not hasattr(x, "dtype") for x, is_size in zip(args, sizes, strict=True)):
        return args
    return [1 if is_size else x for x, is_size in zip(args, sizes, strict=True)]


def result_dtype(tracer, operation, args):
    """The dtype of the result as the backend computes it.

    Keras's own rules differ from what its backends do in two ways. Some functions of floats say
    that they keep integers. And with PyTorch, they say that 64 bits become 32.
    """
    args = _sizes_as_ints(args)
    dtype = tracer.output_dtype(operation, args, {})
    given = [x.dtype for x in keras.tree.flatten(args) if isinstance(x, Symbol)]
    floats = [d for d in given if "float" in d]
    if type(operation).__name__ in _GIVE_FLOATS:
        return floats[0] if floats else keras.config.floatx()
    if keras.backend.backend() == "torch" and _WIDER.get(dtype) in given:
        return _WIDER[dtype]
    return dtype


def result_spec(tracer, operation, args):
    """(sizes, dtype) of the result, with the dtype of `result_dtype`."""
    return tracer.output_spec(operation, args, {})[0], result_dtype(tracer, operation, args)


def in_result_dtype(tracer, operation, x):
    """`x` in the dtype of Keras's result. Keras may change the dtype of integers and bools."""
    return cast(tracer, tracer.symbol(x), result_dtype(tracer, operation, (x,)))


def through_ops(*names):
    """Register `function(operation, *xs)`, which computes with keras.ops, as a lowering.

    It gets its operands as Symbols in the dtype of the result.
    """

    def register(function):
        @lowers(*names)
        def lowering(tracer, operation, *xs):
            dtype = result_dtype(tracer, operation, xs)
            xs = operands(tracer, xs, "int32" if dtype == "bool" else dtype)
            return cast(tracer, function(operation, *xs), dtype)

        return function

    return register


def unary(onnx_name):
    def lowering(tracer, operation, x):
        x = in_result_dtype(tracer, operation, x)
        return of_numbers(tracer, onnx_name, [x], sizes=x.sizes, dtype=x.dtype)

    return lowering


def of_floats(onnx_name, attributes=None):
    """A test of floats. It has an answer for integers, too."""

    def lowering(tracer, operation, x):
        x = tracer.symbol(x)
        if "float" not in x.dtype:
            x = cast(tracer, x, "float32")
        return tracer.emit(onnx_name, [x], attributes, sizes=x.sizes, dtype="bool")

    return lowering


def of_numbers(tracer, onnx_name, xs, attributes=None, *, sizes, dtype):
    """A node for numbers. Bools become 0 and 1, because the operators do not accept bools."""
    result = dtype
    if xs[0].dtype == "bool":
        xs = [x if x is None or x.dtype != "bool" else cast(tracer, x, "int32") for x in xs]
        result = "int32" if dtype == "bool" else dtype
    out = tracer.emit(onnx_name, xs, attributes, sizes=sizes, dtype=result)
    return cast(tracer, out, dtype)


def binary(onnx_name):
    def lowering(tracer, operation, x1, x2):
        sizes, dtype = result_spec(tracer, operation, (x1, x2))
        both = operands(tracer, (x1, x2), dtype)
        return of_numbers(tracer, onnx_name, both, sizes=sizes, dtype=dtype)

    return lowering


def compare(onnx_name):
    def lowering(tracer, operation, x1, x2):
        sizes, _ = tracer.output_spec(operation, (x1, x2), {})
        types = [dtype_of(x) for x in (x1, x2)]
        whole = not any("float" in str(t) for t in types)
        # Integers of any types are compared as they are, all in int64.
        dtype = "int64" if whole else common_dtype((x1, x2))
        both = operands(tracer, (x1, x2), dtype)
        return tracer.emit(onnx_name, both, sizes=sizes, dtype="bool")

    return lowering


def logical(onnx_name):
    def lowering(tracer, operation, *xs):
        sizes, _ = tracer.output_spec(operation, xs, {})
        return tracer.emit(onnx_name, operands(tracer, xs, "bool"), sizes=sizes, dtype="bool")

    return lowering


for _table, _make in ((UNARY, unary), (BINARY, binary), (COMPARE, compare), (LOGICAL, logical)):
    for _keras_name, _onnx_name in _table.items():
        lowers(_keras_name)(_make(_onnx_name))
for _keras_name, (_onnx_name, _attributes) in OF_FLOATS.items():
    lowers(_keras_name)(of_floats(_onnx_name, _attributes))


@lowers("NotEqual")
def not_equal(tracer, operation, x1, x2):
    equal = compare("Equal")(tracer, operation, x1, x2)
    return tracer.emit("Not", [equal], sizes=equal.sizes, dtype="bool")


@lowers("Isfinite")
def isfinite(tracer, operation, x):
    nan, inf = (of_floats(name)(tracer, operation, x) for name in ("IsNaN", "IsInf"))
    either = tracer.emit("Or", [nan, inf], sizes=nan.sizes, dtype="bool")
    return tracer.emit("Not", [either], sizes=nan.sizes, dtype="bool")


@lowers("Square")
def square(tracer, operation, x):
    x = in_result_dtype(tracer, operation, x)
    return of_numbers(tracer, "Mul", [x, x], sizes=x.sizes, dtype=x.dtype)


@lowers("Rsqrt")
def rsqrt(tracer, operation, x):
    x = in_result_dtype(tracer, operation, x)
    root = tracer.emit("Sqrt", [x], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Reciprocal", [root], sizes=x.sizes, dtype=x.dtype)


@lowers("Expm1")
def expm1(tracer, operation, x):
    x = in_result_dtype(tracer, operation, x)
    exp = tracer.emit("Exp", [x], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Sub", [exp, tracer.constant(1.0, x.dtype)], sizes=x.sizes, dtype=x.dtype)


@lowers("Log1p")
def log1p(tracer, operation, x):
    x = in_result_dtype(tracer, operation, x)
    more = tracer.emit("Add", [x, tracer.constant(1.0, x.dtype)], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Log", [more], sizes=x.sizes, dtype=x.dtype)


@lowers("Log2", "Log10")
def log_base(tracer, operation, x):
    x = in_result_dtype(tracer, operation, x)
    base = 2.0 if type(operation).__name__ == "Log2" else 10.0
    log = tracer.emit("Log", [x], sizes=x.sizes, dtype=x.dtype)
    scale = tracer.constant(np.float64(1 / math.log(base)), x.dtype)
    return tracer.emit("Mul", [log, scale], sizes=x.sizes, dtype=x.dtype)


@lowers("Clip")
def clip(tracer, operation, x):
    """As in Keras, bounds are rounded to the dtype of the result. A bound may be None or a tensor.

    ONNX's Clip accepts only scalars.
    """
    x = in_result_dtype(tracer, operation, x)
    given = (operation.x_min, operation.x_max)
    bounds = [None if b is None else operands(tracer, [b], x.dtype)[0] for b in given]
    if all(b is None or b.sizes == () for b in bounds):
        return of_numbers(tracer, "Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)
    for name, bound in zip(("maximum", "minimum"), bounds, strict=True):
        if bound is not None:
            x = getattr(keras.ops, name)(x, bound)
    return x


@lowers("Where")
def where(tracer, operation, condition, x1, x2):
    sizes, dtype = result_spec(tracer, operation, (condition, x1, x2))
    condition = cast(tracer, tracer.symbol(condition), "bool")
    # The Where of onnxruntime does not accept bools.
    chosen = "int32" if dtype == "bool" else dtype
    both = operands(tracer, (x1, x2), chosen)
    out = tracer.emit("Where", [condition, *both], sizes=sizes, dtype=chosen)
    return cast(tracer, out, dtype)


@lowers("Cast")
def cast_operation(tracer, operation, x):
    return cast(tracer, x, keras.backend.standardize_dtype(operation.dtype))


@lowers("SaturateCast")
def saturate_cast(tracer, operation, x):
    """A cast that takes the nearest value of the new type for values outside of it."""
    dtype = keras.backend.standardize_dtype(operation.dtype)
    if x.dtype == "bool" or (dtype not in LIMITS and "int" in x.dtype):
        return cast(tracer, x, dtype)
    limits = [_representable(n, x.dtype) for n in _range(dtype)]
    bounds = operands(tracer, limits, x.dtype)
    x = tracer.emit("Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)
    return cast(tracer, x, dtype)


def _range(dtype):
    """(least, greatest) number of a dtype."""
    if dtype in LIMITS or dtype == "bool":
        return LIMITS.get(dtype, (0, 1))
    high = ml_dtypes.finfo(dtype).max
    return -high, high


def _representable(limit, dtype):
    """The number of a dtype that is nearest to a limit and not beyond it."""
    low, high = _range(dtype)
    if dtype in LIMITS:
        return min(max(limit, low), high)
    kind = DTYPES[dtype].numpy()
    number = np.asarray(min(max(float(limit), float(low)), float(high)), kind)
    beyond = abs(float(number)) > abs(limit)
    return np.nextafter(number, np.asarray(0, kind)) if beyond else number


@lowers("ConvertToTensor")
def convert_to_tensor(tracer, operation, x):
    return cast(tracer, x, operation.dtype) if operation.dtype else x


@lowers("StopGradient", "Copy", "Conj", "Conjugate", "Real")
def identity(tracer, operation, x):
    return x


@lowers("Imag")
def imag(tracer, operation, x):
    return keras.ops.zeros_like(x)


@lowers("Isreal")
def isreal(tracer, operation, x):
    return keras.ops.ones_like(x, dtype="bool")
