"""Choices and loops that data decide: If, Loop and Scan."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.tensors.many import check_all

RANDOM = np.random.default_rng(15)
BACKEND = keras.backend.backend()


def inputs(b, t, n):
    """x (b, t, 3), matrices (b, 3, 3), a number."""
    return [
        RANDOM.uniform(0.2, 0.9, (b, t, 3)).astype("float32"),
        RANDOM.normal(0, 0.5, (b, 3, 3)).astype("float32"),
        np.array(n, "int32"),
    ]


SHAPES = [(None, None, 3), (None, 3, 3), ()]
SMALL, LARGE, NONE = inputs(2, 5, 3), inputs(4, 1, 1), inputs(3, 4, 0)


def halved(x, limit=0.1, most=None):
    """How often `x` is halved until its sum is small, and what is left."""
    return ops.while_loop(
        lambda i, y: ops.sum(y) > limit,
        lambda i, y: (i + 1, y * 0.5),
        (0, x),
        maximum_iterations=most,
    )


def nested(x, n):
    """A loop in a loop, both with a number of steps that depends on data."""

    def outer(i, total):
        return ops.fori_loop(0, i + 1, lambda j, s: s + x[0] * ops.cast(j + 1, "float32"), total)

    return ops.fori_loop(0, n, outer, ops.zeros_like(x[0]))


def summed(carry, x):
    total = carry + x
    return total, total * 2.0


CASES = {
    "cond": lambda x, a, n: (
        ops.cond(n > 2, lambda: x * 2.0, lambda: x + 1.0),
        ops.cond(ops.any(x > 0.85), lambda: ops.sum(x), lambda: ops.max(x)),
    ),
    "cond_in_cond": lambda x, a, n: ops.cond(
        n > 0, lambda: ops.cond(n > 2, lambda: x, lambda: x * 3.0), lambda: -x
    ),
    "switch": lambda x, a, n: ops.switch(
        n - 1, [lambda y: y, lambda y: y * y, lambda y: -y - 1.0], x
    ),
    "while": lambda x, a, n: halved(x),
    "while_at_most": lambda x, a, n: (halved(x, most=2), halved(x, 1e9), halved(x, most=0)),
    "while_one": lambda x, a, n: ops.while_loop(
        lambda y: ops.max(y) < 9.0, lambda y: y * 2.0, ops.max(x, axis=(1, 2))
    ),
    "fori": lambda x, a, n: ops.fori_loop(1, 4, lambda i, y: y * ops.cast(i, "float32"), x),
    "nested": lambda x, a, n: nested(x, n),
    "map": lambda x, a, n: ops.map(lambda y: ops.matmul(y, ops.transpose(y)), x),
    "map_dict": lambda x, a, n: ops.map(lambda d: d["a"] @ d["b"], {"a": a, "b": a + 1.0}),
    "vectorized_map": lambda x, a, n: ops.vectorized_map(
        lambda y: ops.sum(y, axis=-1) - y[0, 0], x
    ),
    "scan": lambda x, a, n: ops.scan(summed, x[:, 0] * 0.0, ops.transpose(x, (1, 0, 2))),
    "scan_back": lambda x, a, n: ops.scan(
        summed, ops.zeros((3,)), ops.transpose(x[0]) @ x[0], reverse=True
    ),
    "associative": lambda x, a, n: (
        ops.associative_scan(lambda p, q: p + q, x, axis=1),
        ops.associative_scan(lambda p, q: p * q, x[:, 0], axis=1, reverse=True),
        ops.associative_scan(lambda p, q: ops.matmul(p, q), a),
    ),
    "associative_pair": lambda x, a, n: ops.associative_scan(
        lambda p, q: (p[0] * q[0], q[0] * p[1] + q[1]), (x, x + 1.0), axis=1
    ),
}
if BACKEND != "jax":  # where both functions must give one shape
    CASES["cond_lengths"] = lambda x, a, n: ops.cond(
        ops.shape(x)[1] > 1, lambda: x[:, 1:], lambda: x
    )


def test_control_flow():
    check_all(CASES, SHAPES, SMALL, LARGE, NONE)


def _refused(function):
    x = keras.Input((None, 7))
    spec = keras.KerasTensor((None, None, 7))
    build_graph(keras.Model(x, Apply(function, spec, name="own")(x)))


def growing(x):
    return ops.while_loop(
        lambda y: ops.shape(y)[1] < 9, lambda y: ops.concatenate([y, y], axis=1), x
    )


REFUSED = {
    "if": (lambda x: x if ops.sum(x) > 0 else -x, "`if`, `while`.*ops.cond, ops.while_loop"),
    "range": (lambda x: [x for _ in range(ops.argmax(x[0, 0], axis=0))][0], "range.*ops.fori_loop"),
    "int": (lambda x: x * int(ops.max(x)), "int\\(\\) of Python.*ops.cast"),
    "float": (lambda x: x * float(ops.max(x)), "float\\(\\) of Python.*ops.cast"),
    "for": (lambda x: ops.stack([y for y in x]), "a loop over a tensor.*ops.map or ops.scan"),
    "len": (lambda x: x * len(x), "len\\(\\) needs a first axis of fixed length.*ops.shape"),
    "growing": (growing, "a state of shape .*start with a state of its final shape"),
    "states": (
        lambda x: ops.while_loop(lambda a, b: True, lambda a, b: (a,), (x, x))[0],
        "returns 1 tensors for 2 loop variables",
    ),
    "branches": (
        lambda x: ops.cond(ops.sum(x) > 0, lambda: x[..., :3], lambda: x),
        "own: the functions of ops.cond return different shapes",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_python_would_decide_is_refused(name):
    function, message = REFUSED[name]
    with pytest.raises(ExportError, match=message):
        _refused(function)


def test_python_decides_by_known_sizes():
    def unrolled(x):
        weights = x[0, 0] if ops.shape(x)[2] == 7 else None
        parts = [part * i for i, part in enumerate(ops.transpose(x, (2, 0, 1)))]
        return sum(parts[: ops.shape(x)[-1] - 1]) * weights[len(weights) - 1]

    x = RANDOM.normal(size=(2, 3, 7)).astype("float32")
    graph = check_all({"unrolled": unrolled}, [(None, None, 7)], [x])
    assert {"If", "Loop", "Scan"}.isdisjoint(node.op_type for node in graph)
