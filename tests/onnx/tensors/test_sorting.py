"""Sorting, searching, counting, unique values."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.tensors.many import check_all

RANDOM = np.random.default_rng(13)
BACKEND = keras.backend.backend()


def inputs(b, t):
    """x (b, t, 7) with ties, NaN and infinities, whole numbers (b, t), a vector (t,), bools."""
    x = RANDOM.integers(-4, 5, (b, t, 7)).astype("float32")
    special = RANDOM.random(x.shape)
    x[special < 0.1] = np.nan
    x[(special > 0.1) & (special < 0.2)] = np.inf
    x[special > 0.9] = -np.inf
    return [
        x,
        RANDOM.integers(0, 6, (b, t)).astype("int32"),
        np.sort(RANDOM.normal(size=(5,))).astype("float32"),
        RANDOM.random((b, t)) < 0.5,
    ]


SHAPES = [(None, None, 7), (None, None), (5,), (None, None)]
SMALL, LARGE = inputs(3, 5), inputs(2, 11)


def finite(x):
    return ops.where(ops.isfinite(x), x, 0.5)


SORTS = {
    "sort": lambda x, i, v, m: (ops.sort(i, axis=0), ops.sort(m), ops.sort(i, axis=None)),
    "argsort": lambda x, i, v, m: (ops.argsort(i), ops.argsort(m), ops.argsort(i, axis=None)),
    "sort_floats": lambda x, i, v, m: (ops.sort(finite(x), axis=1), ops.argsort(finite(x), axis=0)),
    "top_k": lambda x, i, v, m: (ops.top_k(i, 3)[0], ops.top_k(finite(x), 4)[0], ops.top_k(v, 5)),
    "top_k_unsorted": lambda x, i, v, m: ops.sort(ops.top_k(v, 2, sorted=False)[0]),
}
# The sort of TensorFlow leaves NaN where they are.
NANS = {"nan": lambda x, i, v, m: (ops.sort(x, axis=1), ops.argsort(x, axis=-1))}
SEARCHES = {
    "left": lambda x, i, v, m: ops.searchsorted(v, ops.ravel(x)),
    "right": lambda x, i, v, m: ops.searchsorted(v, v, side="right"),
    "numbers": lambda x, i, v, m: ops.searchsorted(ops.sort(i[0]), i[1], side="right"),
    "digitize": lambda x, i, v, m: ops.digitize(x, np.array([-2.0, 0.0, 3.0], "float32")),
    "isin": lambda x, i, v, m: (ops.isin(i, [2, 5]), ops.isin(i, i[0, :2], invert=True)),
    "nonzero": lambda x, i, v, m: (ops.nonzero(m), ops.nonzero(i), ops.where(m)),
    "unravel": lambda x, i, v, m: ops.unravel_index(i[0] * 3, (3, 8)),
}
COUNTS = {
    "bincount": lambda x, i, v, m: (ops.bincount(i[0]), ops.bincount(i[0], minlength=9)),
    "bincount_rows": lambda x, i, v, m: ops.bincount(i, minlength=6),
    "bincount_weights": lambda x, i, v, m: ops.bincount(i[0], weights=finite(x)[0, :, 0]),
    "histogram": lambda x, i, v, m: (
        ops.histogram(v, 4),
        ops.histogram(finite(x)[0, 0], 5, range=(-3.0, 3.0)),
        ops.histogram(v[:1], 2, range=(-9.0, 9.0)),
    ),
}
UNIQUE = {
    "unique": lambda x, i, v, m: (
        ops.unique(i),
        ops.unique(i, return_inverse=True, return_counts=True),
        ops.unique(i, axis=0),
    ),
    "unique_size": lambda x, i, v, m: (
        ops.unique(i, size=4),
        ops.unique(i, size=20, fill_value=-3),
        ops.unique(i, size=9, return_counts=True),
        ops.unique(i[:, :2], axis=0, size=5, fill_value=-1),
    ),
    "unique_index": lambda x, i, v, m: ops.unique(i[0], return_index=True, size=8),
}


def _same_parts(actual, expected):
    """Both order the same positions, and the smallest are first."""
    np.testing.assert_array_equal(np.sort(actual), np.sort(expected))
    np.testing.assert_array_equal(np.sort(actual[..., :2]), np.sort(expected[..., :2]))


PARTS = {"argpartition": lambda x, i, v, m: ops.argpartition(v * 100, 1)}
# TensorFlow takes no values with several axes. Its argpartition repeats positions.
NOT_TENSORFLOW = PARTS | NANS | {"matrix": lambda x, i, v, m: ops.searchsorted(v, x, side="left")}
COMPARE = {"argpartition": _same_parts}


@pytest.mark.parametrize("target", ["portable"] if BACKEND == "jax" else ["portable", "ort"])
def test_sorting(target):
    cases = SORTS | SEARCHES | COUNTS | UNIQUE
    cases |= {} if BACKEND == "tensorflow" else NOT_TENSORFLOW
    check_all(cases, SHAPES, SMALL, LARGE, target=target, compare=COMPARE)


def test_a_sort_is_one_node():
    graph = check_all({"sort": lambda x, i, v, m: ops.sort(v)}, SHAPES, SMALL)
    assert [node.op_type for node in graph] == ["TopK"]


def test_bins_that_descend():
    falling = np.array([2.0, 0.0, -3.0], "float32")
    cases = {"falling": lambda x, i, v, m: ops.digitize(x, falling)}
    if BACKEND == "jax":  # where NumPy's definition holds
        check_all(cases, SHAPES, SMALL)


def _refused(function):
    x = keras.Input((5,), dtype="int32")
    spec = keras.KerasTensor((None,))
    build_graph(keras.Model(x, Apply(function, spec, name="apply")(x)))


def test_more_than_there_are_is_refused():
    with pytest.raises(ExportError, match="top_k of 6 from an axis of 5"):
        _refused(lambda x: ops.top_k(x, 6)[0])


def test_sparse_counts_are_refused():
    with pytest.raises(ExportError, match="sparse=True makes no dense tensor"):
        _refused(lambda x: ops.bincount(x, sparse=True))
