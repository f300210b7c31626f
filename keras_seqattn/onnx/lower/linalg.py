"""Linear algebra that ends after one step for each row: eliminations, as Loops of any length.

Each step works on whole matrices: an elimination of (b, n, n) is n steps of about 20 nodes.
"""

import keras
from keras import ops

from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers


def numbers_of(tracer, x, axis):
    """0, 1, 2, ... along an axis of `x`, int32 (size of the axis,)."""
    return ops.arange(tracer.size(x, axis))


def column(x, number):
    return ops.take(x, number, axis=-1)


def row(x, number):
    return ops.take(x, number, axis=-2)


def outer(left, right):
    return ops.multiply(ops.expand_dims(left, -1), ops.expand_dims(right, -2))


def identity(tracer, x):
    """Identity matrices (..., n, n) of the dtype of `x` (..., n, anything)."""
    numbers = numbers_of(tracer, x, -2)
    eye = ops.cast(ops.equal(numbers, ops.expand_dims(numbers, 1)), x.dtype)
    size = tracer.size(x, -2)
    batch = [tracer.size(x, axis) for axis in range(len(x.sizes) - 2)]
    return ops.broadcast_to(tracer.tensor(eye), [*batch, size, size])


def transposed(x):
    return ops.swapaxes(x, -1, -2)


def matrices(tracer, b, a):
    """`b` as matrices, and whether it was a vector beside the matrices of `a`."""
    b = tracer.tensor(b)
    is_vector = len(b.sizes) == len(a.sizes) - 1
    return (ops.expand_dims(b, -1) if is_vector else b), is_vector


@lowers("Det")
def det(tracer, operation, x):
    return tracer.emit("Det", [x], sizes=x.sizes[:-2], dtype=x.dtype)


def _swapped(tracer, a, number, rows):
    """(the order of rows, its first change): row `number` and the row of its pivot, exchanged."""
    size = ops.where(ops.greater_equal(rows, number), ops.abs(column(a, number)), -1.0)
    pivot = ops.argmax(size, axis=-1, keepdims=True)
    order = ops.where(ops.equal(rows, pivot), number, rows)
    return ops.where(ops.equal(rows, number), pivot, order), pivot


def _factors(tracer, x):
    """LU with partial pivoting.

    Returns:
        (L below the diagonal and U (..., m, n), the row exchanged in each step int32 (..., k), the
        rows of x in their new order int32 (..., m)).
    """
    rows, columns = numbers_of(tracer, x, -2), numbers_of(tracer, x, -1)
    steps = ops.minimum(tracer.tensor(tracer.size(x, -2)), tracer.tensor(tracer.size(x, -1)))
    order = ops.add(ops.cast(ops.zeros_like(x[..., 0]), "int32"), rows)
    exchanged = ops.cast(ops.zeros_like(x[..., 0] if _is_wide(x) else x[..., 0, :]), "int32")
    places = numbers_of(tracer, exchanged, -1)

    def step(k, state):
        a, order, exchanged = state
        change, pivot = _swapped(tracer, a, k, rows)
        a = ops.take_along_axis(a, ops.expand_dims(change, -1), axis=-2)
        order = ops.take_along_axis(order, change, axis=-1)
        exchanged = ops.where(ops.equal(places, k), pivot, exchanged)
        top = row(a, k)
        pivot = column(top, k)
        # A column of zeros stays as it is.
        pivot = ops.expand_dims(ops.where(ops.equal(pivot, 0), ops.ones_like(pivot), pivot), -1)
        factor = ops.where(ops.greater(rows, k), ops.divide(column(a, k), pivot), 0.0)
        rest = ops.subtract(a, outer(factor, ops.where(ops.greater(columns, k), top, 0.0)))
        below = ops.logical_and(ops.greater(ops.expand_dims(rows, 1), k), ops.equal(columns, k))
        return ops.where(below, ops.expand_dims(factor, -1), rest), order, exchanged

    a, order, exchanged = ops.fori_loop(0, steps, step, (x, order, exchanged))
    return a, exchanged, order


def _is_wide(x):
    """Whether there are at most as many rows as columns, as far as is known."""
    rows, columns = x.sizes[-2:]
    return rows == columns or int(rows) <= int(columns)


@lowers("LuFactor")
def lu_factor(tracer, operation, x):
    a, exchanged, order = _factors(tracer, x)
    if keras.backend.backend() == "tensorflow":
        # There, Keras gives the new place of each row.
        return a, ops.argsort(order, axis=-1)
    return a, exchanged


@lowers("Slogdet")
def slogdet(tracer, operation, x):
    """(sign, logarithm of the absolute value) of determinants."""
    a, exchanged, _ = _factors(tracer, x)
    diagonal = ops.diagonal(a, axis1=-2, axis2=-1)
    swaps = ops.not_equal(exchanged, numbers_of(tracer, exchanged, -1))
    swaps = ops.sum(ops.cast(swaps, "int32"), axis=-1)
    parity = ops.cast(1 - 2 * ops.mod(swaps, 2), x.dtype)
    sign = ops.multiply(parity, ops.prod(ops.sign(diagonal), axis=-1))
    return sign, ops.sum(ops.log(ops.abs(diagonal)), axis=-1)


@lowers("Logdet")
def logdet(tracer, operation, x):
    """The logarithm of determinants. A negative one gives NaN, but on JAX that of its size."""
    sign, log = slogdet(tracer, operation, x)
    if keras.backend.backend() == "jax":
        return log
    return ops.where(ops.less(sign, 0), float("nan"), log)


@lowers("Solve")
def solve(tracer, operation, a, b):
    a = tracer.tensor(a)
    b, is_vector = matrices(tracer, b, a)
    x = _solved(tracer, a, cast(tracer, b, a.dtype))
    return ops.squeeze(x, -1) if is_vector else x


@lowers("Inv")
def inv(tracer, operation, x):
    return _solved(tracer, x, identity(tracer, x))


def _solved(tracer, a, b):
    """The X of A X = B by Gauss-Jordan elimination with partial pivoting."""
    rows, size = numbers_of(tracer, a, -2), tracer.size(a, -2)

    def step(k, both):
        change, _ = _swapped(tracer, both, k, rows)
        both = ops.take_along_axis(both, ops.expand_dims(change, -1), axis=-2)
        top = row(both, k)
        top = ops.divide(top, ops.expand_dims(column(top, k), -1))
        at_pivot = ops.equal(rows, k)
        factor = ops.where(at_pivot, 0.0, column(both, k))
        both = ops.where(ops.expand_dims(at_pivot, -1), ops.expand_dims(top, -2), both)
        return ops.subtract(both, outer(factor, top))

    both = ops.concatenate([a, b], axis=-1)
    return ops.fori_loop(0, size, step, both)[..., size:]


@lowers("Cholesky")
def cholesky(tracer, operation, x):
    """The factor of positive definite matrices. It is NaN for others, which Keras refuses."""
    if keras.backend.backend() == "jax":
        # The other backends read one triangle of the matrix.
        x = ops.multiply(ops.add(x, transposed(x)), 0.5)
    rows = numbers_of(tracer, x, -2)

    def step(k, state):
        rest, factor = state
        below = column(rest, k)
        root = ops.sqrt(ops.expand_dims(column(below, k), -1))
        below = ops.where(ops.greater_equal(rows, k), ops.divide(below, root), 0.0)
        rest = ops.subtract(rest, outer(below, below))
        chosen = ops.equal(rows, k)
        return rest, ops.where(chosen, ops.expand_dims(below, -1), factor)

    if operation.upper and keras.backend.backend() == "torch":
        x = transposed(x)
    _, factor = ops.fori_loop(0, tracer.size(x, -1), step, (x, ops.zeros_like(x)))
    return transposed(factor) if operation.upper else factor


def _substituted(tracer, a, b, *, lower):
    """The X of A X = B for triangular A, row by row."""
    rows, size = numbers_of(tracer, a, -2), tracer.size(a, -2)

    def step(k, x):
        k = k if lower else size - 1 - k
        # Rows of x that are not yet known are zero.
        known = ops.squeeze(ops.matmul(ops.expand_dims(row(a, k), -2), x), -2)
        pivot = ops.expand_dims(column(row(a, k), k), -1)
        new = ops.divide(ops.subtract(row(b, k), known), pivot)
        chosen = ops.expand_dims(ops.equal(rows, k), -1)
        return ops.where(chosen, ops.expand_dims(new, -2), x)

    return ops.fori_loop(0, size, step, ops.zeros_like(b))


@lowers("SolveTriangular")
def solve_triangular(tracer, operation, a, b):
    a = tracer.tensor(a)
    b, is_vector = matrices(tracer, b, a)
    x = _substituted(tracer, a, cast(tracer, b, a.dtype), lower=operation.lower)
    return ops.squeeze(x, -1) if is_vector else x


@lowers("CholeskyInverse")
def cholesky_inverse(tracer, operation, x):
    """The inverse of a matrix of which `x` is the Cholesky factor."""
    inverse = _substituted(tracer, x, identity(tracer, x), lower=not operation.upper)
    if operation.upper:
        return ops.matmul(inverse, transposed(inverse))
    return ops.matmul(transposed(inverse), inverse)


@lowers("Qr")
def qr(tracer, operation, x):
    """(Q, R) by Householder reflections, with the signs of LAPACK."""
    rows = numbers_of(tracer, x, -2)
    size, width = tracer.size(x, -2), tracer.size(x, -1)
    steps = min(size, width)

    def step(k, state):
        r, q = state
        below = ops.where(ops.greater_equal(rows, k), column(r, k), 0.0)
        head = ops.expand_dims(column(below, k), -1)
        tail = ops.where(ops.greater(rows, k), below, 0.0)
        rest = ops.sum(ops.square(tail), axis=-1, keepdims=True)
        length = ops.sqrt(ops.add(ops.square(head), rest))
        new = ops.where(ops.less(head, 0), length, ops.negative(length))
        # A column that is zero below its head is not reflected.
        done = ops.equal(rest, 0)
        scale = ops.where(done, 1.0, ops.subtract(head, new))
        vector = ops.where(ops.equal(rows, k), 1.0, ops.divide(tail, scale))
        tau = ops.where(done, 0.0, ops.divide(ops.subtract(new, head), ops.where(done, 1.0, new)))
        weighted = ops.multiply(vector, tau)
        r = ops.subtract(r, outer(weighted, _times(vector, r)))
        return r, ops.subtract(q, outer(_times(vector, transposed(q)), weighted))

    r, q = ops.fori_loop(0, steps, step, (x, identity(tracer, x)))
    r = ops.triu(r)
    if operation.mode == "reduced":
        return q[..., :steps], r[..., :steps, :]
    return q, r


def _times(vector, x):
    """Vectors (..., m) times matrices (..., m, n)."""
    return ops.squeeze(ops.matmul(ops.expand_dims(vector, -2), x), -2)
