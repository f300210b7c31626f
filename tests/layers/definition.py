"""Mixers against their formulas in float64: values, rows of padding alone, and gradients."""

import keras
import numpy as np
from keras import ops

from tests.helpers import check_slopes, compiled_on_jax, to_numpy
from tests.mechanisms import ragged_mask


def check_definition(layer, definition, x, tolerance, **call):
    """Values under ragged padding, and the gradients in the input and in every weight.

    Args:
        layer: a built mixer whose result for a row of padding alone is zeros.
        definition: (x, mask, weights) -> y in NumPy float64; the weights by their paths within
            the layer, mask int (4, t).
        x: float32 (4, t, m).
        tolerance: largest error, relative to the largest value where that is over 1.
        call: further call arguments.
    """
    prefix = f"{layer.path}/"
    names = [v.path.removeprefix(prefix) for v in layer.trainable_variables]
    arrays = {n: to_numpy(v.value) for n, v in zip(names, layer.trainable_variables, strict=True)}
    fixed = [v.value for v in layer.non_trainable_variables]
    mask = ragged_mask(x.shape[1])
    # A stateless call converts nothing itself.
    call = keras.tree.map_structure(ops.convert_to_tensor, {"attention_mask": mask, **call})

    def run(x, **weights):
        y, _ = layer.stateless_call([weights[name] for name in names], fixed, x, **call)
        return y[0] if "cache" in call else y

    tensors = keras.tree.map_structure(ops.convert_to_tensor, {"x": x, **arrays})
    actual = to_numpy(compiled_on_jax(run)(**tensors))
    wide = {name: array.astype("float64") for name, array in arrays.items()}
    expected = definition(x.astype("float64"), mask, wide)
    real = mask != 0
    bound = tolerance * max(1.0, np.abs(expected[real]).max())
    np.testing.assert_allclose(actual[real], expected[real], rtol=0, atol=bound)
    assert np.isfinite(actual).all()
    assert not actual[3].any(), "a row of padding alone must give zeros"

    weight = np.random.default_rng(1).standard_normal(x.shape) * real[..., None]

    def loss(**given):
        return ops.sum(ops.multiply(run(**given), weight.astype("float32")))

    def define(x, **weights):
        return (definition(x, mask, weights) * weight).sum()

    # float32, over sums of thousands of products.
    check_slopes(loss, define, {"x": x, **arrays}, tolerance=2e-4)
