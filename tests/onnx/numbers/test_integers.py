"""Integers of each type wrap, divide, shift and convert as in Keras, also at their limits."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.numbers.together import differences

RANDOM = np.random.default_rng(5)
# PyTorch has few functions of uint16 and uint32.
TYPES = ["int8", "uint8", "int16", "int32"]
if keras.backend.backend() != "torch":
    TYPES += ["uint16", "uint32"]


def inputs(dtype, rows):
    """`x` and `y` (rows, 5) with the limits of the type, and `small`, from 0 to 6."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    ends = np.array([low, low + 1, max(low, -1), 0, 1, 2, high - 1, high], np.int64)
    x, y = (RANDOM.choice(ends, size=(rows, 5)) for _ in range(2))
    x[0], y[0] = ends[:5], ends[-5:]
    small = RANDOM.integers(0, 7, size=(rows, 5))
    return {name: a.astype(dtype) for name, a in (("x", x), ("y", y), ("small", small))}


WRAPPING = {
    "add": lambda x, y, small: ops.add(x, y),
    "subtract": lambda x, y, small: ops.subtract(x, y),
    "multiply": lambda x, y, small: ops.multiply(x, y),
    "abs": lambda x, y, small: ops.abs(x),
    "square": lambda x, y, small: ops.square(x),
    "sum": lambda x, y, small: ops.sum(x, axis=1),
    "cumsum": lambda x, y, small: ops.cumsum(x, axis=0),
    "prod": lambda x, y, small: ops.prod(small, axis=1),
    "cumprod": lambda x, y, small: ops.cumprod(small, axis=1),
    "chain": lambda x, y, small: ops.maximum(x + y, 1) * 3 - y,
    "to_int8": lambda x, y, small: ops.cast(x, "int8"),
    "to_uint8": lambda x, y, small: ops.cast(x, "uint8"),
    "to_int16": lambda x, y, small: ops.cast(x, "int16"),
    "to_int32": lambda x, y, small: ops.cast(x, "int32"),
    "to_float": lambda x, y, small: ops.cast(x, "float32"),
    "diff": lambda x, y, small: ops.diff(x, axis=1),
    "floor_divide": lambda x, y, small: ops.floor_divide(x, ops.where(y == 0, 3, y)),
    "mod": lambda x, y, small: ops.mod(x, ops.where(y == 0, 3, y)),
    "floor_divide_5": lambda x, y, small: ops.floor_divide(x, 5),
    "mod_5": lambda x, y, small: ops.mod(x, 5),
    "divide": lambda x, y, small: ops.divide(x, ops.where(y == 0, 3, y)),
    "bitwise_and": lambda x, y, small: ops.bitwise_and(x, y),
    "bitwise_or": lambda x, y, small: ops.bitwise_or(x, y),
    "bitwise_xor": lambda x, y, small: ops.bitwise_xor(x, y),
    "bitwise_not": lambda x, y, small: ops.bitwise_not(x),
    "left_shift": lambda x, y, small: ops.left_shift(x, small),
    "left_shift_3": lambda x, y, small: ops.bitwise_left_shift(x, ops.full_like(x, 3)),
    "right_shift": lambda x, y, small: ops.right_shift(x, small),
    "power": lambda x, y, small: ops.power(small, 2),
    "power_tensor": lambda x, y, small: ops.power(small - small + 3, small),
    "less": lambda x, y, small: ops.less(x, y),
    "equal": lambda x, y, small: ops.equal(x, y),
    "maximum": lambda x, y, small: ops.maximum(x, y),
    "max": lambda x, y, small: ops.max(x, axis=1),
    "max_initial": lambda x, y, small: ops.max(small, axis=1, initial=4),
    "sign": lambda x, y, small: ops.sign(small),
    "clip": lambda x, y, small: ops.clip(x, 1, 5),
    "saturate": lambda x, y, small: ops.saturate_cast(x, "uint8"),
    "where": lambda x, y, small: ops.where(x > y, x, y),
    "mean": lambda x, y, small: ops.mean(small, axis=1),
    "sqrt": lambda x, y, small: ops.sqrt(small),
    "var": lambda x, y, small: ops.var(small, axis=1),
    "std": lambda x, y, small: ops.std(small, axis=1),
    "argmax": lambda x, y, small: ops.argmax(small, axis=1),
    "trunc": lambda x, y, small: ops.trunc(x),
    "round": lambda x, y, small: ops.round(small),
    "logical_and": lambda x, y, small: ops.logical_and(x, small),
    "matmul": lambda x, y, small: ops.matmul(small, ops.transpose(small)),
}
# Backends give answers only to some of these.
SIGNED = {
    "negative": lambda x, y, small: ops.negative(x),
    "gcd": lambda x, y, small: ops.gcd(small * 6, small[:1] * 4),
    "lcm": lambda x, y, small: ops.lcm(small, small[:1]),
    "fmod": lambda x, y, small: ops.fmod(ops.right_shift(x, 1), 5),
    "signbit": lambda x, y, small: ops.signbit(x),
    "count_nonzero": lambda x, y, small: ops.count_nonzero(x, axis=1),
}
TABLES = [(WRAPPING, [inputs(t, 3), inputs(t, 11)]) for t in TYPES]
TABLES += [(SIGNED, [inputs("int32", 3), inputs("int32", 11)])]


@pytest.mark.parametrize("case", range(len(TABLES)), ids=[*TYPES, "signed"])
def test_integers(case):
    functions, runs = TABLES[case]
    assert not differences(functions, *runs)


# A bool becomes 0 or 1 by a Cast, too.
OF_BOOLS = ("a mask", "classes")


def nodes(function, *shape, dtype="int32", **kwargs):
    """The types of the nodes for a function of one input of integers."""
    x = keras.Input(shape, dtype=dtype, name="x")
    spec = keras.KerasTensor((None, *shape), dtype)
    graph = build_graph(keras.Model(x, Apply(function, spec)(x)), "portable")
    return [node.op_type for node in graph.graph]


SMALL = {
    "a mask": lambda x: ops.cumsum(ops.cast(x > 0, "int32"), axis=1) * 2 - 1,
    "positions": lambda x: (ops.arange(ops.shape(x)[0]) + 7) * 3 + ops.clip(x[0, :1], 0, 3),
    "positions of a flattened tensor": lambda x: (
        ops.expand_dims(ops.arange(ops.shape(x)[0]), 1) * ops.shape(x)[0] + ops.argmax(x, axis=1)
    ),
    "remainders": lambda x: ops.mod(x, 1000) * 1000 + ops.clip(x, 0, 9),
    "classes": lambda x: ops.sum(ops.one_hot(x, 5, dtype="int32"), axis=-1) * 100,
}


def test_small_integers_do_not_wrap():
    for name, function in SMALL.items():
        # One for the type of the input and one for that of the output; none from int64 and back.
        assert nodes(function, 7).count("Cast") == 2 + (name in OF_BOOLS), name


def test_a_sum_of_any_integers_wraps_once():
    assert nodes(lambda x: x + 1, 7) == ["Cast", "Add", "Cast"]
    assert nodes(lambda x: (x + 1) * 2, 7) == ["Cast", "Add", "Cast", "Cast", "Mul", "Cast"]


JAX = keras.backend.backend() == "jax"


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16"])
def test_floats_out_of_range_become_what_the_backend_makes_of_them(dtype):
    values = [[-300.5, -1.0, 3.9, 255.4, 256.0, 70000.0, *([np.nan, np.inf] if JAX else [])]]
    x = {"x": np.array(values, "float32")}
    assert not differences({"cast": lambda x: ops.cast(x, dtype)}, x)
