"""Linformer against the formula, and in ONNX."""

import numpy as np
import pytest

from keras_seqattn.layers.mechanisms import Linformer
from tests.helpers import randomise, to_numpy
from tests.mechanisms import (
    EXPORT_LENGTHS,
    check_export,
    check_mechanism,
    heads,
    ragged_mask,
    softmax_attention,
)


def _linformer(**settings):
    mechanism = Linformer(11, max_length=37, **settings)
    mechanism.build((None, None, 4, 5))
    return randomise(mechanism)


def _definition(mechanism):
    projections = (mechanism.key_projection, mechanism.value_projection)
    keys, values = (to_numpy(x.value).astype("float64") for x in projections)

    def attend(q, k, v, mask):
        out = np.zeros((*q.shape[:3], v.shape[3]))
        for row, real in enumerate(mask):
            places = real.cumsum()[real] - 1
            mixed = [
                np.einsum("sk,shd->khd", table[places], x[row, real])[None]
                for table, x in ((keys, k), (values, v))
            ]
            out[row] = softmax_attention(q[row][None], *mixed, True)[0]
        return out

    return attend


@pytest.mark.parametrize("shared", ["heads", "key_value"])
def test_definition(shared):
    mechanism = _linformer(shared=shared)
    assert len(mechanism.weights) == (2 if shared == "heads" else 1)
    check_mechanism(mechanism, _definition(mechanism), (5, 37))


def test_export(tmp_path):
    check_export(Linformer(11, max_length=max(EXPORT_LENGTHS)), tmp_path)


def test_configuration():
    copy = Linformer.from_config(_linformer(shared="key_value").get_config())
    assert (copy.num_features, copy.max_length, copy.shared) == (11, 37, "key_value")


def test_what_is_refused():
    mechanism = _linformer()
    with pytest.raises(ValueError, match="shared must be one of heads, key_value"):
        Linformer(3, 7, shared="layers")
    with pytest.raises(ValueError, match="cannot be causal"):
        mechanism(*heads(5), causal=True)
    with pytest.raises(ValueError, match="for 37 keys at most; there are 38"):
        mechanism(*heads(38))
    with pytest.raises(ValueError, match="Linformer has no state"):
        mechanism(*heads(5), state=())


def test_any_number_but_zero_is_a_real_token():
    mechanism, arrays = _linformer(), heads(7)
    mask = ragged_mask(7)
    expected = to_numpy(mechanism(*arrays, mask=mask))
    np.testing.assert_array_equal(to_numpy(mechanism(*arrays, mask=3 * mask)), expected)
