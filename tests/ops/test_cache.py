import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.ops import cache_write, uncached_context
from tests.helpers import compiled, gradients, to_numpy

B, G, N, D = 2, 3, 11, 5


def operands(length, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (B, G, N, D), (B, length, G, D)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize("length, position", [(1, 0), (1, N - 1), (3, 4), (7, 4), (N, 0)])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_write(length, position, shape):
    cache, new = operands(length)
    expected = cache.copy()
    expected[:, :, position : position + length] = new.transpose(0, 2, 1, 3)
    before = ops.convert_to_tensor(cache)
    out = cache_write(before, new, np.full(shape, position, "int32"))
    np.testing.assert_array_equal(to_numpy(out), expected)
    np.testing.assert_array_equal(to_numpy(before), cache)


def test_compiled_with_a_position_that_is_not_known():
    cache, new = operands(2)
    write = compiled(cache_write)
    for position in (0, 5, 9):
        tensors = [ops.convert_to_tensor(x) for x in (cache, new, np.int32(position))]
        out = to_numpy(write(*tensors))
        np.testing.assert_array_equal(out[:, :, position : position + 2], new.transpose(0, 2, 1, 3))


def test_gradient_reaches_the_kept_and_the_new():
    cache, new = operands(2)
    kept, written = gradients(lambda c, x: ops.sum(cache_write(c, x, 3)), cache, new)
    expected = np.ones_like(cache)
    expected[:, :, 3:5] = 0
    np.testing.assert_array_equal(kept, expected)
    np.testing.assert_array_equal(written, np.ones_like(new))


@pytest.mark.backend_free
def test_symbolic_shape():
    cache = keras.KerasTensor((None, G, None, D), "float16")
    new = keras.KerasTensor((None, None, G, D), "float16")
    out = cache_write(cache, new, keras.KerasTensor((1,), "int32"))
    assert out.shape == cache.shape and out.dtype == "float16"


@pytest.mark.parametrize("cached", [0, 3, 7])
def test_what_of_a_context_is_not_cached(cached):
    context = np.random.default_rng(0).standard_normal((2, 7, 5)).astype("float32")
    past = np.zeros((2, 3, cached, 11), "float32")
    np.testing.assert_array_equal(to_numpy(uncached_context(context, past)), context[:, cached:])
    symbols = keras.Input((None, 5)), keras.Input((3, None, 11))
    rest = uncached_context(*symbols)
    assert rest.shape == (None, None, 5)
    result = to_numpy(keras.Model(symbols, rest)([context, past]))
    np.testing.assert_array_equal(result, context[:, cached:])
