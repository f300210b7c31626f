"""Reading parts of tensors: `x[...]`, take, slices."""

import keras
import numpy as np
import pytest
from keras import ops

from tests.onnx.tensors.many import check_all

RANDOM = np.random.default_rng(11)
BACKEND = keras.backend.backend()


def inputs(b, t):
    """x (b, t, 7), ids (b, 3) in [-b, b), one position, and a mask (b, t)."""
    mask = RANDOM.random((b, t)) < 0.6
    mask[0, 0] = True
    return [
        RANDOM.normal(size=(b, t, 7)).astype("float32"),
        RANDOM.integers(0, 2, (b, 3)).astype("int32"),
        np.array(1, "int32"),
        mask,
    ]


SHAPES = [(None, None, 7), (None, 3), (), (None, None)]
SMALL, LARGE = inputs(3, 5), inputs(2, 4)

KEYS = {
    "numbers": lambda x, i, n, m: x[1, -1],
    "slices": lambda x, i, n, m: x[:, 1:-1, ::2],
    "new_axes": lambda x, i, n, m: (x[None, :, None, ..., 3], x[..., None, 0, None]),
    "beyond": lambda x, i, n, m: x[:, 1:99, 9:],
    "scalar": lambda x, i, n, m: (x[n], x[:, n], x[..., n], x[n, :, n]),
    "until": lambda x, i, n, m: (x[:, :n], x[:, n:], x[:, :, n : n + 3]),
    "until_size": lambda x, i, n, m: (x[:, : ops.shape(x)[1] - 1], x[:, ops.shape(x)[1] - 2 :]),
}
# PyTorch has no steps below 0.
BACKWARD = {"backward": lambda x, i, n, m: (x[:, ::-1, 5:1:-2], x[..., ::-1])}
# TensorFlow takes no tensor with axes as an index, and only a mask of the first axes.
TENSORS = {
    "vector": lambda x, i, n, m: (x[i[:, 0]], x[:, i[0]], x[..., i[0]]),
    "matrix": lambda x, i, n, m: (x[i], x[:, i], x[:, :, i]),
    "array": lambda x, i, n, m: (x[:, np.array([1, 0])], x[:, :, np.array([[2, -1], [0, 6]])]),
    "two": lambda x, i, n, m: (x[i, i], x[:, i, i], x[i, :, i], x[i[:, :1], i[:1]]),
    "with_new": lambda x, i, n, m: (x[i[0], None, i[0]], x[None, i[0], i[1]]),
    "with_number": lambda x, i, n, m: (x[:, i[0], 2], x[1, i[0]], x[i[0], 1:3], x[n, :, i[0]]),
    "three": lambda x, i, n, m: x[i, i, i],
}
# JAX and TensorFlow take no lists.
LISTS = {"list": lambda x, i, n, m: (x[[1, 0]], x[:, [1, 0], 2:4], x[..., [[0, 6]]])}
MASKS = {
    "mask": lambda x, i, n, m: (x[m], x[m[:, 0]]),
    "mask_of_two": lambda x, i, n, m: x[m] + x[m] * ops.cast(m[m], "float32")[:, None],
}
MORE_MASKS = {
    "mask_inside": lambda x, i, n, m: (x[:, m[0]], x[:, m[0], 2]),
    "mask_of_all": lambda x, i, n, m: x[x > 0],
}


def test_keys():
    cases = KEYS if BACKEND == "tensorflow" else KEYS | TENSORS | MORE_MASKS
    cases |= LISTS if BACKEND == "torch" else BACKWARD
    graph = check_all(cases | MASKS, SHAPES, SMALL, LARGE)
    types = [node.op_type for node in graph]
    assert types.count("Compress") >= 1


def test_a_key_is_few_nodes():
    def nodes(function):
        graph = check_all({"key": function}, SHAPES, SMALL)
        # Whole numbers of an input become int64.
        return [node.op_type for node in graph if node.op_type != "Cast"]

    assert nodes(lambda x, i, n, m: x[:, ::2, 1:3]) == ["Slice"]
    if BACKEND != "tensorflow":
        assert nodes(lambda x, i, n, m: x[:, i[0]]) == ["Gather", "Gather"]
        assert nodes(lambda x, i, n, m: x[m[:, 0]]) == ["Gather", "Compress"]


TAKES = {
    "take": lambda x, i, n, m: (ops.take(x, i, axis=0), ops.take(x, i - 1, axis=1)),
    "take_flat": lambda x, i, n, m: (ops.take(x, i), ops.take(x, np.array([3, 1]))),
    "take_one": lambda x, i, n, m: (ops.take(x, 1, axis=-1), ops.take(x, n, axis=0)),
    "take_along": lambda x, i, n, m: ops.take_along_axis(x[:, 0, :3], i, axis=1),
    "take_along_wide": lambda x, i, n, m: (
        ops.take_along_axis(x, i[:, :, None], axis=1),
        ops.take_along_axis(x, i[:1, :, None] - 1, axis=1),
        ops.take_along_axis(x[:1], i[:, :, None], axis=1),
    ),
    "take_along_flat": lambda x, i, n, m: ops.take_along_axis(x, i[0], axis=None),
    "slice": lambda x, i, n, m: ops.slice(x, (0, 1, 2), (ops.shape(x)[0], 2, 3)),
    "slice_tensor": lambda x, i, n, m: ops.slice(x, (0, n, 2), (1, 1, 3)),
}


def test_takes():
    check_all(TAKES, SHAPES, SMALL, LARGE)


@pytest.mark.skipif(BACKEND == "torch", reason="there, Keras computes a length of -1")
def test_slices_of_what_is_left():
    check_all({"rest": lambda x, i, n, m: ops.slice(x, (0, 1, 2), (-1, -1, 3))}, SHAPES, SMALL)
