"""Linear algebra: eliminations as Loops, Jacobi rotations, norms."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.tensors.many import check_all

RANDOM = np.random.default_rng(16)
BACKEND = keras.backend.backend()


def inputs(b):
    """Square (b, 5, 5), positive definite (b, 5, 5), tall (b, 7, 4), right sides (b, 5, 3)."""
    a = RANDOM.normal(size=(b, 5, 5)).astype("float32")
    return [
        a + 2 * np.eye(5, dtype="float32"),
        a @ a.transpose(0, 2, 1) + np.eye(5, dtype="float32"),
        RANDOM.normal(size=(b, 7, 4)).astype("float32"),
        RANDOM.normal(size=(b, 5, 3)).astype("float32"),
    ]


SHAPES = [(None, 5, 5), (None, 5, 5), (None, 7, 4), (None, 5, 3)]
SMALL, LARGE = inputs(1), inputs(3)


def close(actual, expected):
    assert actual.shape == expected.shape
    # Sums of products of 5 numbers, divided by pivots down to 1e-2 in a chain of 5 steps.
    np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=2e-4)


ELIMINATIONS = {
    "det": lambda a, p, t, b: ops.det(a),
    "slogdet": lambda a, p, t, b: ops.slogdet(a),
    "logdet": lambda a, p, t, b: ops.logdet(p),
    "inv": lambda a, p, t, b: ops.inv(a),
    "solve": lambda a, p, t, b: (ops.solve(a, b), ops.solve(a[0], b[0, :, 0])),
    "lu": lambda a, p, t, b: ops.lu_factor(a[0]),
    "cholesky": lambda a, p, t, b: (ops.cholesky(p), ops.cholesky(p, upper=True)),
    "triangular": lambda a, p, t, b: (
        ops.solve_triangular(a, b),
        ops.solve_triangular(a, b, lower=True),
        ops.solve_triangular(a, b[..., 1], lower=True),
    ),
    "cholesky_inverse": lambda a, p, t, b: (
        ops.cholesky_inverse(ops.cholesky(p)[0]),
        ops.cholesky_inverse(ops.cholesky(p, upper=True)[0], upper=True),
    ),
    "qr": lambda a, p, t, b: (ops.qr(a), ops.qr(t), ops.qr(ops.swapaxes(t, 1, 2))),
    "qr_complete": lambda a, p, t, b: ops.qr(t, mode="complete"),
}
SPECTRAL = {
    "svd": lambda a, p, t, b: (
        ops.svd(a, compute_uv=False),
        ops.svd(t, compute_uv=False),
        ops.svd(ops.swapaxes(t, 1, 2), compute_uv=False),
    ),
    "eigh": lambda a, p, t, b: (ops.eigh(p)[0], ops.eigh(a + ops.swapaxes(a, 1, 2))[0]),
    "pinv": lambda a, p, t, b: (ops.pinv(t), ops.pinv(a), ops.pinv(t, rcond=0.5)),
    "lstsq": lambda a, p, t, b: (
        ops.lstsq(t[0], t[0, :, :2]),
        ops.lstsq(t[0, :3], b[0, :3, 0]),
        ops.lstsq(t[0], t[0, :, 0], rcond=0.4),
    ),
    "rank": lambda a, p, t, b: (
        ops.matrix_rank(t),
        ops.matrix_rank(ops.matmul(t[..., :2], ops.swapaxes(t[..., :2], 1, 2))),
    ),
    "rebuilt": lambda a, p, t, b: (_rebuilt(t), _diagonalised(p)),
}
ORDERS = [None, "fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf, 1, np.inf]
AXES = [(1, 2), (2, 1), (1, 2), (1, 2), (2, 1), (2, 1), (1, 2), (1, 2), (2, 1), (2, 1), (2, 1)]
NORMS = {
    "of_vectors": lambda a, p, t, b: [
        ops.norm(t, ord=order, axis=1, keepdims=order == 3)
        for order in (None, 0, 1, 2, 3, -1, 0.5, np.inf, -np.inf)
    ],
    "of_matrices": lambda a, p, t, b: [
        ops.norm(t, ord=order, axis=axis) for order, axis in zip(ORDERS, AXES, strict=True)
    ],
}
# What TensorFlow refuses, or cannot do.
NOT_TENSORFLOW = {
    "lu_of_several": lambda a, p, t, b: (ops.lu_factor(a), ops.lu_factor(t)),
    "of_all": lambda a, p, t, b: (ops.norm(t), ops.norm(t, keepdims=True)),
    "of_matrices_kept": lambda a, p, t, b: [
        ops.norm(t, ord=order, axis=(2, 1), keepdims=True) for order in ("nuc", 1, -np.inf)
    ],
}


def _rebuilt(t):
    u, values, v = ops.svd(t, full_matrices=False)
    return ops.matmul(u * ops.expand_dims(values, -2), v)


def _diagonalised(p):
    values, vectors = ops.eigh(p)
    return ops.matmul(vectors * ops.expand_dims(values, -2), ops.swapaxes(vectors, 1, 2))


CASES = ELIMINATIONS | SPECTRAL | NORMS | ({} if BACKEND == "tensorflow" else NOT_TENSORFLOW)


def test_linear_algebra():
    check_all(CASES, SHAPES, SMALL, LARGE, compare=dict.fromkeys(CASES, close))


def test_values_that_decide_alone():
    """A pivot of 0, a determinant of 0, a column without a tail, one row."""
    swap = np.array([[[0.0, 2.0], [3.0, 0.0]], [[1.0, 2.0], [2.0, 4.0]]], "float32")
    cases = {
        "slogdet": lambda x, y: ops.slogdet(x)[0],
        "inv": lambda x, y: ops.inv(x[:1]),
        "qr": lambda x, y: (ops.qr(x[0]), ops.qr(y), ops.qr(ops.transpose(y))),
        "one": lambda x, y: (ops.inv(x[:1, :1, 1:]), ops.svd(y, compute_uv=False)),
        "svd": lambda x, y: ops.svd(x, compute_uv=False),
    }
    column = np.array([[-3.0], [4.0]], "float32")
    compare = dict.fromkeys(cases, close)
    check_all(cases, [(None, 2, 2), (2, 1)], [swap, column], compare=compare)


def test_sizes_of_eliminations_may_be_dynamic():
    a = RANDOM.normal(size=(4, 4)).astype("float32") + 3 * np.eye(4, dtype="float32")
    cases = {"inv": lambda a: ops.inv(ops.matmul(a, ops.transpose(a)) + ops.eye(ops.shape(a)[0]))}
    check_all(cases, [(None, 4)], [a], [a[:2]], compare=dict.fromkeys(cases, close))


def _refused(function, shape):
    x = keras.Input(shape)
    spec = keras.KerasTensor((None, None))
    build_graph(keras.Model(x, Apply(function, spec, name="own")(x)))


def test_singular_values_of_unknown_sizes_are_refused():
    with pytest.raises(ExportError, match="own: Norm of .*sizes must be fixed"):
        _refused(lambda x: ops.norm(x, ord="nuc", axis=(1, 2)), (None, 7))
    with pytest.raises(ExportError, match="own: Pinv of 70 x 80 matrices.*at most 64"):
        _refused(ops.pinv, (70, 80))


def test_what_has_no_form_is_refused():
    with pytest.raises(ExportError, match="own: ops.eig gives complex numbers; use ops.eigh"):
        _refused(lambda x: ops.eig(x)[0], (3, 3))


def test_vectors_that_complete_a_basis_are_refused():
    with pytest.raises(ExportError, match="own: ops.svd .*full_matrices=False"):
        _refused(lambda x: ops.svd(x)[0], (3, 4))
