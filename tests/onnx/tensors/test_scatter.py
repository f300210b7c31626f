"""Writing at positions: scatter, scatter_update, segment reductions."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.tensors.many import check_all

RANDOM = np.random.default_rng(14)
BACKEND = keras.backend.backend()


def inputs(b, n):
    """x (b, 5, 7), places (n,) in [-1, 6), values (n, 7), pairs (n, 2) with repeats, bools (b,)."""
    return [
        RANDOM.normal(size=(b, 5, 7)).astype("float32"),
        RANDOM.integers(-1, 6, (b,)).astype("int32"),
        RANDOM.normal(size=(b, 7)).astype("float32"),
        np.stack([RANDOM.integers(0, 3, b), RANDOM.integers(0, 5, b)], 1).astype("int32"),
        RANDOM.random(b) < 0.5,
    ]


SHAPES = [(None, 5, 7), (None,), (None, 7), (None, 2), (None,)]
SMALL, LARGE = inputs(4, 4), inputs(11, 11)
# Each place once.
APART = np.array([[2, 1], [0, 4], [1, 1]], "int32")

CASES = {
    "scatter": lambda x, p, v, q, m: (
        ops.scatter(q, v, (3, 5, 7)),
        ops.scatter(q, v[:, 0], (3, 5)),
        ops.scatter(q[:, :1], v, (ops.shape(x)[0], 7)),
        ops.scatter(q[:, 1:], p, (5,)),
    ),
    "update": lambda x, p, v, q, m: (
        ops.scatter_update(x, APART, v[:3]),
        ops.scatter_update(x[..., 0], APART, v[:3, 0]),
        ops.scatter_update(x[0], np.array([[4], [2]]), v[:2]),
    ),
    "update_add": lambda x, p, v, q, m: (
        ops.scatter_update(x[:3], q, v, reduction="add"),
        ops.scatter_update(x[0], q[:, 1:], v, reduction="add"),
        ops.scatter_update(p, q[:, :1], p, reduction="add"),
    ),
    "update_max": lambda x, p, v, q, m: ops.scatter_update(x[:3], q, v, reduction="max"),
    "update_min": lambda x, p, v, q, m: ops.scatter_update(x[:3], q, v, reduction="min"),
    "update_mul": lambda x, p, v, q, m: ops.scatter_update(x[:3], q, v, reduction="mul"),
    "sum": lambda x, p, v, q, m: (
        ops.segment_sum(v, p, num_segments=8),
        ops.segment_sum(x, p, num_segments=6),
        ops.segment_sum(p, q[:, 0], num_segments=3),
    ),
    "max": lambda x, p, v, q, m: ops.segment_max(v, p, num_segments=8),
    "min": lambda x, p, v, q, m: ops.segment_min(v, p, num_segments=8),
    "prod": lambda x, p, v, q, m: ops.segment_prod(v, p, num_segments=8),
}
# TensorFlow refuses a segment that is not there, if it is not below 0.
BEYOND = {
    "beyond": lambda x, p, v, q, m: (
        ops.segment_sum(x, p, num_segments=5),
        ops.segment_max(x, p, num_segments=2),
    ),
}


def test_scatter():
    cases = CASES if BACKEND == "tensorflow" else CASES | BEYOND
    check_all(cases, SHAPES, SMALL, LARGE)


def test_an_update_is_one_node():
    cases = {"update": lambda x, p, v, q, m: ops.scatter_update(x, q, v)}
    graph = check_all(cases, SHAPES, [*SMALL[:3], np.stack([np.arange(4)] * 2, 1), SMALL[4]])
    assert [node.op_type for node in graph if node.op_type != "Cast"] == ["ScatterND"]


def test_segments_of_unknown_number_are_refused():
    x = keras.Input((7,))
    spec = keras.KerasTensor((None, 7))
    sums = Apply(lambda x: ops.segment_sum(x, np.zeros(4, "int32")), spec, name="sums")
    with pytest.raises(ExportError, match="sums: SegmentSum without num_segments"):
        build_graph(keras.Model(x, sums(x)))
