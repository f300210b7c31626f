"""float16 ends at 65,504: large inputs stay finite wherever float32 has a number that fits."""

import numpy as np
import pytest

from tests.helpers import randomise, to_numpy
from tests.layers.zoo import LAYERS, WIDTH

# The product of three projections is itself too large.
BEYOND = {"short_convolution"}


@pytest.mark.parametrize("name", sorted(set(LAYERS) - BEYOND))
def test_large_inputs(name):
    random = np.random.default_rng(0)
    x = random.standard_normal((2, 20, WIDTH)).astype("float32")
    full = LAYERS[name]()
    full.build((None, None, WIDTH))
    randomise(full, seed=3)
    for dtype in ("mixed_float16", "float16"):
        half = LAYERS[name](dtype)
        half.build((None, None, WIDTH))
        half.set_weights(full.get_weights())
        expected, y = to_numpy(full(30 * x)), to_numpy(half(30 * x))
        # Large scores make a row choose one key, and a few rows another one in 11 bits.
        close = np.abs(y - expected) <= 0.05 * max(1.0, np.abs(expected).max())
        assert close.mean() > 0.8
        # Scores of some 10^5.
        assert np.isfinite(to_numpy(half(300 * x))).all()


@pytest.mark.parametrize("bias", [False, True])
def test_a_mask_holds_against_any_score(bias):
    random = np.random.default_rng(1)
    x = (300 * random.standard_normal((2, 9, WIDTH))).astype("float32")
    layer = LAYERS["causal"]("float16")
    layer.build((None, None, WIDTH))
    randomise(layer, seed=3)
    more = {"bias": np.ones((1, 1, 9, 9), "float16")} if bias else {}
    mask = np.ones((2, 9), "int32")
    mask[0, :4] = 0
    before = to_numpy(layer(x, attention_mask=mask, **more))
    assert not before[0, :4].any() or layer.use_output_bias
    x[:, 5:], x[0, :4] = 0.0, 7.0
    after = to_numpy(layer(x, attention_mask=mask, **more))
    np.testing.assert_array_equal(after[0, 4], before[0, 4])
    np.testing.assert_array_equal(after[1, :5], before[1, :5])
