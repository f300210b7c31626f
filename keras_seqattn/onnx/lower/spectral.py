"""Singular values, eigenvalues, and what is made of them, by Jacobi rotations in a Loop.

The last two sizes must be fixed. Rotations of n // 2 pairs of columns are one step, and a sweep
has n - 1 steps or n of them. Vectors are unique only up to their signs, which are not those of
Keras.
"""

import keras
import numpy as np
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.linalg import identity, matrices, transposed
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.sizes import is_dynamic

# Measured on random, graded and singular matrices of up to 64 columns: the values no longer change
# after 7 sweeps. Their errors are then at most 5e-6 of the largest value.
_SWEEPS = 8
_LARGEST = 64


def _decomposed(tracer, x):
    """The singular value decomposition of matrices (..., m, n) with k = min(m, n).

    Returns:
        (U (..., m, k), values in descending order (..., k), V (..., n, k)).
    """
    rows, columns = x.sizes[-2:]
    if is_dynamic(rows) or is_dynamic(columns) or min(rows, columns) > _LARGEST:
        raise ExportError(
            f"{tracer.where()}: {tracer._operations[-1]} of {rows} x {columns} matrices; the "
            f"sizes must be fixed, and one of them at most {_LARGEST}"
        )
    if rows < columns:
        u, values, v = _decomposed(tracer, transposed(x))
        return v, values, u
    rotated, v = _rotated(tracer, x, columns)
    values = ops.sqrt(ops.sum(ops.square(rotated), axis=-2))
    values, order = ops.top_k(values, columns)
    order = ops.expand_dims(order, -2)
    rotated, v = (ops.take_along_axis(y, order, axis=-1) for y in (rotated, v))
    length = ops.expand_dims(values, -2)
    u = ops.divide(rotated, ops.where(ops.equal(length, 0), 1.0, length))
    return u, values, v


def _rotated(tracer, x, count):
    """(X V with orthogonal columns, V). V is orthogonal."""
    v = identity(tracer, transposed(x))
    if count == 1:
        return x, v
    pairs, back = _tournament(count)
    half, steps = pairs.shape[1], len(pairs)

    def step(number, state):
        round_ = ops.mod(number, steps)
        left, right, rest = (
            ops.take(tracer.constant(part), round_, axis=0)
            for part in (pairs[:, :, 0], pairs[:, :, 1], _byes(pairs, count))
        )
        places = ops.take(tracer.constant(back), round_, axis=0)
        cosine, sine = _rotation(*(ops.take(state[0], side, axis=-1) for side in (left, right)))
        turned = []
        for y in state:
            a, b = (ops.take(y, side, axis=-1) for side in (left, right))
            parts = [
                ops.subtract(ops.multiply(cosine, a), ops.multiply(sine, b)),
                ops.add(ops.multiply(sine, a), ops.multiply(cosine, b)),
            ]
            if count > 2 * half:
                parts.append(ops.take(y, rest, axis=-1))
            turned.append(ops.take(ops.concatenate(parts, axis=-1), places, axis=-1))
        return tuple(turned)

    return ops.fori_loop(0, _SWEEPS * steps, step, (x, v))


def _rotation(a, b):
    """(cosine, sine) (..., 1, pairs) of the rotations that make pairs of columns orthogonal."""
    along, across = (ops.sum(ops.square(y), axis=-2, keepdims=True) for y in (a, b))
    product = ops.sum(ops.multiply(a, b), axis=-2, keepdims=True)
    done = ops.equal(product, 0)
    ratio = ops.divide(ops.subtract(across, along), ops.where(done, 1.0, product) * 2)
    root = ops.sqrt(ops.add(ops.square(ratio), 1.0))
    # The sign of zero is 1 here.
    tangent = ops.divide(ops.where(ops.less(ratio, 0), -1.0, 1.0), ops.add(ops.abs(ratio), root))
    tangent = ops.where(done, 0.0, tangent)
    cosine = ops.rsqrt(ops.add(ops.square(tangent), 1.0))
    return cosine, ops.multiply(cosine, tangent)


def _tournament(count):
    """Rounds in which every two columns meet once.

    Returns:
        (int64 (rounds, pairs, 2), int64 (rounds, count): the places of the columns in the sequence
        of all left ones, all right ones, and the one that has no partner).
    """
    players = list(range(count + count % 2))
    rounds = []
    for _ in range(len(players) - 1):
        half = len(players) // 2
        pairs = zip(players[:half], players[: half - 1 : -1], strict=True)
        rounds.append([pair for pair in pairs if max(pair) < count])
        players.insert(1, players.pop())
    pairs = np.array(rounds)
    order = np.concatenate([pairs[:, :, 0], pairs[:, :, 1], _byes(pairs, count)], axis=1)
    return pairs, np.argsort(order, axis=1)


def _byes(pairs, count):
    """int64 (rounds, 0 or 1), the column without a partner in each round."""
    missing = [sorted(set(range(count)) - set(pair.ravel().tolist())) for pair in pairs]
    return np.array(missing, np.int64).reshape(len(pairs), -1)


@lowers("SVD")
def svd(tracer, operation, x):
    u, values, v = _decomposed(tracer, x)
    if not operation.compute_uv:
        return values
    if operation.full_matrices and x.sizes[-2] != x.sizes[-1]:
        raise ExportError(
            f"{tracer.where()}: ops.svd of matrices that are not square needs full_matrices=False"
        )
    return u, values, transposed(v)


@lowers("Eigh")
def eigh(tracer, operation, x):
    """(eigenvalues in ascending order, eigenvectors) of symmetric matrices."""
    # Shifted by its norm, a matrix has no negative eigenvalue. Then they are its singular values.
    shift = ops.sqrt(ops.sum(ops.square(x), axis=(-2, -1), keepdims=True))
    moved = ops.add(x, ops.multiply(shift, identity(tracer, x)))
    _, values, v = _decomposed(tracer, moved)
    values = ops.subtract(values, ops.squeeze(shift, -1))
    return ops.flip(values, axis=-1), ops.flip(v, axis=-1)


def singular_values(tracer, x):
    """(..., min(m, n)), in descending order."""
    return _decomposed(tracer, x)[1]


def _inverted(tracer, x, tolerance):
    """The pseudoinverse without singular values below a part of the largest one."""
    u, values, v = _decomposed(tracer, x)
    known = ops.greater(values, ops.multiply(values[..., :1], tolerance))
    inverse = ops.where(known, ops.divide(1.0, ops.where(known, values, 1.0)), 0.0)
    return ops.matmul(ops.multiply(v, ops.expand_dims(inverse, -2)), transposed(u))


def _precision(x):
    """The relative rounding error times the larger size."""
    return float(np.finfo(x.dtype).eps) * max(x.sizes[-2:])


@lowers("Pinv")
def pinv(tracer, operation, x):
    # NumPy's default, which JAX and TensorFlow follow, is ten times that of PyTorch.
    factor = 1 if keras.backend.backend() == "torch" else 10
    default = factor * _precision(x)
    return _inverted(tracer, x, default if operation.rcond is None else operation.rcond)


@lowers("Lstsq")
def lstsq(tracer, operation, a, b):
    """The shortest of the vectors with the least error."""
    a = tracer.tensor(a)
    b, is_vector = matrices(tracer, b, a)
    default = _precision(a)
    inverse = _inverted(tracer, a, default if operation.rcond is None else operation.rcond)
    x = ops.matmul(inverse, b)
    return ops.squeeze(x, -1) if is_vector else x


@lowers("MatrixRank")
def matrix_rank(tracer, operation, x):
    values = singular_values(tracer, x)
    limit = operation.tol
    if limit is None:
        limit = ops.multiply(values[..., :1], _precision(x))
    return ops.sum(ops.cast(ops.greater(values, limit), "int32"), axis=-1)


_NO_FORM = {
    "Eig": "ops.eig gives complex numbers; use ops.eigh for symmetric matrices",
    "JVP": "ops.jvp needs the derivative of a function; write the derivative with keras.ops",
}


@lowers(*_NO_FORM)
def no_form(tracer, operation, *args, **kwargs):
    raise ExportError(f"{tracer.where()}: {_NO_FORM[type(operation).__name__]}")
