"""Lowerings that work element by element: arithmetic, comparisons, activations, casts."""

import math

import keras
import numpy as np
import onnx_ir as ir

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.symbol import DTYPES

UNARY = {
    "Absolute": "Abs", "Abs": "Abs", "Arccos": "Acos", "Arcsin": "Asin", "Arctan": "Atan",
    "Ceil": "Ceil", "Cos": "Cos", "Cosh": "Cosh", "Erf": "Erf", "Exp": "Exp", "Floor": "Floor",
    "Log": "Log", "Negative": "Neg", "Reciprocal": "Reciprocal", "Relu": "Relu", "Round": "Round",
    "Sigmoid": "Sigmoid", "Sign": "Sign", "Sin": "Sin", "Sinh": "Sinh", "Softplus": "Softplus",
    "Softsign": "Softsign", "Sqrt": "Sqrt", "Tan": "Tan", "Tanh": "Tanh",
}  # fmt: skip
BINARY = {
    "Add": "Add", "Divide": "Div", "Maximum": "Max", "Minimum": "Min", "Multiply": "Mul",
    "Power": "Pow", "Subtract": "Sub", "TrueDivide": "Div",
}  # fmt: skip
COMPARE = {
    "Equal": "Equal", "Greater": "Greater", "GreaterEqual": "GreaterOrEqual", "Less": "Less",
    "LessEqual": "LessOrEqual",
}  # fmt: skip
LOGICAL = {"LogicalAnd": "And", "LogicalNot": "Not", "LogicalOr": "Or", "LogicalXor": "Xor"}
OF_FLOATS = {"Isinf": "IsInf", "Isnan": "IsNaN"}


def cast(tracer, x, dtype):
    """`x` in another dtype. Casts between integers do nothing, because the file has only int64."""
    if x.dtype == dtype:
        return x
    if "int" in x.dtype and "int" in dtype:
        return x.view(dtype)
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


def common_dtype(args):
    """The dtype in which Keras would compare or combine the arguments."""
    standard = keras.backend.standardize_dtype
    types = [standard(a.dtype) if hasattr(a, "dtype") else type(a) for a in args]
    return keras.backend.result_type(*types)


def in_result_dtype(tracer, operation, x):
    """`x` in the dtype of Keras's result. Keras may change the dtype of integers and bools."""
    return cast(tracer, tracer.symbol(x), tracer.output_spec(operation, (x,), {})[1])


def unary(onnx_name):
    def lowering(tracer, operation, x):
        dtype = tracer.output_spec(operation, (x,), {})[1]
        x = in_result_dtype(tracer, operation, x)
        return of_numbers(tracer, onnx_name, [x], sizes=x.sizes, dtype=dtype)

    return lowering


def of_floats(onnx_name):
    """A test of floats. It has an answer for integers, too."""

    def lowering(tracer, operation, x):
        x = tracer.symbol(x)
        if "float" not in x.dtype:
            x = cast(tracer, x, "float32")
        return tracer.emit(onnx_name, [x], sizes=x.sizes, dtype="bool")

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
        sizes, dtype = tracer.output_spec(operation, (x1, x2), {})
        both = operands(tracer, (x1, x2), dtype)
        return of_numbers(tracer, onnx_name, both, sizes=sizes, dtype=dtype)

    return lowering


def compare(onnx_name):
    def lowering(tracer, operation, x1, x2):
        sizes, _ = tracer.output_spec(operation, (x1, x2), {})
        dtype = common_dtype((x1, x2))
        both = operands(tracer, (x1, x2), "int32" if dtype == "bool" else dtype)
        return tracer.emit(onnx_name, both, sizes=sizes, dtype="bool")

    return lowering


def logical(onnx_name):
    def lowering(tracer, operation, *xs):
        sizes, _ = tracer.output_spec(operation, xs, {})
        return tracer.emit(onnx_name, operands(tracer, xs, "bool"), sizes=sizes, dtype="bool")

    return lowering


for _table, _make in (
    (UNARY, unary),
    (BINARY, binary),
    (COMPARE, compare),
    (LOGICAL, logical),
    (OF_FLOATS, of_floats),
):
    for _keras_name, _onnx_name in _table.items():
        lowers(_keras_name)(_make(_onnx_name))


@lowers("NotEqual")
def not_equal(tracer, operation, x1, x2):
    equal = compare("Equal")(tracer, operation, x1, x2)
    return tracer.emit("Not", [equal], sizes=equal.sizes, dtype="bool")


@lowers("FloorDivide")
def floor_divide(tracer, operation, x1, x2):
    sizes, dtype = tracer.output_spec(operation, (x1, x2), {})
    a, b = operands(tracer, (x1, x2), dtype)
    if "int" not in dtype:
        quotient = tracer.emit("Div", [a, b], sizes=sizes, dtype=dtype)
        return tracer.emit("Floor", [quotient], sizes=sizes, dtype=dtype)
    # The integer Div of ONNX truncates. If the remainder is not 0 and has the other sign, the
    # result is one less.
    remainder = tracer.emit("Mod", [a, b], sizes=sizes, dtype=dtype)
    floored = tracer.emit("Sub", [a, remainder], sizes=sizes, dtype=dtype)
    return tracer.emit("Div", [floored, b], sizes=sizes, dtype=dtype)


@lowers("Mod")
def mod(tracer, operation, x1, x2):
    sizes, dtype = tracer.output_spec(operation, (x1, x2), {})
    a, b = operands(tracer, (x1, x2), dtype)
    if "int" in dtype:
        return tracer.emit("Mod", [a, b], sizes=sizes, dtype=dtype)
    quotient = tracer.emit(
        "Floor", [tracer.emit("Div", [a, b], sizes=sizes, dtype=dtype)], sizes=sizes, dtype=dtype
    )
    whole = tracer.emit("Mul", [quotient, b], sizes=sizes, dtype=dtype)
    return tracer.emit("Sub", [a, whole], sizes=sizes, dtype=dtype)


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


@lowers("Clip")
def clip(tracer, operation, x):
    """As in Keras, bounds are rounded to the dtype of the result."""
    x = in_result_dtype(tracer, operation, x)
    bounds = operands(tracer, (operation.x_min, operation.x_max), x.dtype)
    return of_numbers(tracer, "Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)


@lowers("Where")
def where(tracer, operation, condition, x1, x2):
    sizes, dtype = tracer.output_spec(operation, (condition, x1, x2), {})
    condition = cast(tracer, tracer.symbol(condition), "bool")
    # The Where of onnxruntime does not accept bools.
    chosen = "int32" if dtype == "bool" else dtype
    both = operands(tracer, (x1, x2), chosen)
    out = tracer.emit("Where", [condition, *both], sizes=sizes, dtype=chosen)
    return cast(tracer, out, dtype)


@lowers("Cast", "SaturateCast")
def cast_operation(tracer, operation, x):
    return cast(tracer, x, keras.backend.standardize_dtype(operation.dtype))


@lowers("ConvertToTensor")
def convert_to_tensor(tracer, operation, x):
    return cast(tracer, x, operation.dtype) if operation.dtype else x


@lowers("StopGradient", "Copy")
def identity(tracer, operation, x):
    return x


@lowers("Gelu")
def gelu(tracer, operation, x):
    approximate = "tanh" if operation.approximate else "none"
    return tracer.emit("Gelu", [x], {"approximate": approximate}, sizes=x.sizes, dtype=x.dtype)


@lowers("Silu")
def silu(tracer, operation, x):
    """SiLU. QuickGelu with alpha 1 is the same function, and has the fastest kernel."""
    if tracer.target.supports("QuickGelu"):
        return tracer.emit(
            "QuickGelu", [x], {"alpha": 1.0}, domain="com.microsoft", sizes=x.sizes, dtype=x.dtype
        )
    gate = tracer.emit("Sigmoid", [x], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Mul", [x, gate], sizes=x.sizes, dtype=x.dtype)


@lowers("ReLU")
def relu_activation(tracer, operation, x):
    """`keras.activations.relu`, which has its own class."""
    if operation.threshold or (operation.negative_slope and operation.max_value is not None):
        raise ExportError(
            f"{tracer.where()}: relu with a threshold, or with both a slope and a maximum, cannot "
            "be exported"
        )
    if operation.negative_slope:
        return leaky_relu(tracer, operation, x)
    if operation.max_value is not None:
        bounds = [tracer.constant(float(b), x.dtype) for b in (0, operation.max_value)]
        return tracer.emit("Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Relu", [x], sizes=x.sizes, dtype=x.dtype)


@lowers("HardSilu")
def hard_silu(tracer, operation, x):
    gate = hard_sigmoid(tracer, operation, x)
    return tracer.emit("Mul", [x, gate], sizes=x.sizes, dtype=x.dtype)


@lowers("Relu6")
def relu6(tracer, operation, x):
    bounds = [tracer.constant(0.0, x.dtype), tracer.constant(6.0, x.dtype)]
    return tracer.emit("Clip", [x, *bounds], sizes=x.sizes, dtype=x.dtype)


@lowers("LeakyRelu")
def leaky_relu(tracer, operation, x):
    slope = {"alpha": operation.negative_slope}
    return tracer.emit("LeakyRelu", [x], slope, sizes=x.sizes, dtype=x.dtype)


@lowers("Elu")
def elu(tracer, operation, x):
    return tracer.emit("Elu", [x], {"alpha": operation.alpha}, sizes=x.sizes, dtype=x.dtype)


@lowers("Selu")
def selu(tracer, operation, x):
    return tracer.emit("Selu", [x], sizes=x.sizes, dtype=x.dtype)


@lowers("HardSigmoid")
def hard_sigmoid(tracer, operation, x):
    """Keras's hard sigmoid is relu6(x + 3) / 6."""
    slope = {"alpha": 1 / 6, "beta": 0.5}
    return tracer.emit("HardSigmoid", [x], slope, sizes=x.sizes, dtype=x.dtype)


@lowers("LogSigmoid")
def log_sigmoid(tracer, operation, x):
    """log sigmoid(x) = -softplus(-x). This form does not overflow."""
    negative = tracer.emit("Neg", [x], sizes=x.sizes, dtype=x.dtype)
    plus = tracer.emit("Softplus", [negative], sizes=x.sizes, dtype=x.dtype)
    return tracer.emit("Neg", [plus], sizes=x.sizes, dtype=x.dtype)


@lowers("Isfinite")
def isfinite(tracer, operation, x):
    nan, inf = (of_floats(name)(tracer, operation, x) for name in ("IsNaN", "IsInf"))
    either = tracer.emit("Or", [nan, inf], sizes=nan.sizes, dtype="bool")
    return tracer.emit("Not", [either], sizes=nan.sizes, dtype="bool")


@lowers("Log2", "Log10")
def log_base(tracer, operation, x):
    x = in_result_dtype(tracer, operation, x)
    base = 2.0 if type(operation).__name__ == "Log2" else 10.0
    log = tracer.emit("Log", [x], sizes=x.sizes, dtype=x.dtype)
    scale = tracer.constant(np.float64(1 / math.log(base)), x.dtype)
    return tracer.emit("Mul", [log, scale], sizes=x.sizes, dtype=x.dtype)
