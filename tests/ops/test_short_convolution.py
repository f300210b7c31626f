"""The causal convolution against its sum in float64: padding, states, causality, gradients."""

import numpy as np
import pytest
from keras import ops

from keras_seqattn.ops import causal_convolution
from tests.helpers import check_slopes, to_numpy
from tests.mechanisms import ragged_mask

BATCH, WIDTH = 4, 7
RANDOM = np.random.default_rng(5)


def definition(x, kernel, bias, mask, state=None):
    size = len(kernel)
    x = x.astype("float64") * (mask[..., None] != 0)
    before = np.zeros((len(x), size - 1, x.shape[2])) if state is None else state
    padded = np.concatenate([before, x], axis=1)
    windows = [padded[:, t : t + size] for t in range(x.shape[1])]
    out = np.stack([(w * kernel).sum(1) + bias for w in windows], axis=1)
    return out, padded[:, x.shape[1] :]


def arguments(length, size):
    shapes = {"x": (BATCH, length, WIDTH), "kernel": (size, WIDTH), "bias": (WIDTH,)}
    arrays = {n: RANDOM.standard_normal(s).astype("float32") for n, s in shapes.items()}
    state = RANDOM.standard_normal((BATCH, size - 1, WIDTH)).astype("float32")
    return arrays | {"mask": ragged_mask(length), "state": state}


@pytest.mark.parametrize("length", [1, 3, 11])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_definition(length, size):
    arrays = arguments(length, size)
    for result, expected in zip(causal_convolution(**arrays), definition(**arrays), strict=True):
        np.testing.assert_allclose(to_numpy(result), expected, rtol=0, atol=1e-5)


def test_parts_are_the_whole():
    arrays = arguments(11, 4)
    expected, last = definition(**arrays)
    outs, state = [], arrays.pop("state")
    for part in (slice(0, 2), slice(2, 3), slice(3, 11)):
        cut = arrays | {name: arrays[name][:, part] for name in ("x", "mask")}
        out, state = causal_convolution(**cut, state=state)
        outs.append(to_numpy(out))
    np.testing.assert_allclose(np.concatenate(outs, 1), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(to_numpy(state), last, rtol=0, atol=1e-6)


def test_gradients():
    arrays = arguments(11, 4)
    del arrays["state"]
    mask = arrays.pop("mask")
    weight = RANDOM.standard_normal(arrays["x"].shape).astype("float32")

    def loss(x, kernel, bias):
        out, _ = causal_convolution(x, kernel, bias, mask)
        return ops.sum(ops.multiply(out, weight))

    def define(**given):
        return (definition(**given, mask=mask)[0] * weight).sum()

    # float32, over sums of hundreds of products.
    check_slopes(loss, define, arrays, tolerance=2e-5)
