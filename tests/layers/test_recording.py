import keras
import numpy as np
import pytest

from keras_seqattn.layers import DecoderBlock, MultiHeadAttention
from keras_seqattn.layers.recording import is_recording, record, recording
from tests.helpers import randomise, to_numpy

B, T, S, M, D, F = 2, 5, 7, 11, 4, 3


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def test_what_is_recorded_is_what_the_layer_returns():
    layer = MultiHeadAttention(6, D, 2, causal=True)
    x = normal(B, T, M)
    layer(x)
    randomise(layer)
    mask = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    out, scores = to_numpy(layer(x, attention_mask=mask, return_attention_scores=True))
    with recording() as records:
        recorded = layer(x, attention_mask=mask)
        layer(x[:, :3])
    assert [r[0] for r in records] == [layer, layer]
    np.testing.assert_array_equal(to_numpy(records[0][1]), scores)
    np.testing.assert_allclose(to_numpy(recorded), out, rtol=0, atol=1e-6)
    assert records[1][1].shape == (B, 6, 3, 3)


def test_layers_of_a_model_in_the_order_of_their_calls():
    x, context = keras.Input((None, M), name="x"), keras.Input((None, M), name="context")
    y = DecoderBlock(6, D, F, cross_attention=True, name="first")(x, context)
    y = DecoderBlock(6, D, F, cross_attention=True, name="second")(y, context)
    model = keras.Model([x, context], y)
    inputs = [normal(B, T, M), normal(B, S, M)]
    with recording() as records:
        model(inputs)
    assert [layer.path for layer, _ in records] == [
        f"{block}/{kind}" for block in ("first", "second") for kind in _KINDS
    ]
    assert [tuple(scores.shape) for _, scores in records] == [(B, 6, T, T), (B, 6, T, S)] * 2
    for _, scores in records:
        np.testing.assert_allclose(to_numpy(scores).sum(-1), 1.0, atol=1e-5)


_KINDS = ("attention", "cross_attention")


@pytest.mark.backend_free
def test_only_the_open_context_records():
    record("nobody", 0)
    assert not is_recording()
    with recording() as outer:
        record("a", 1)
        with recording() as inner:
            record("b", 2)
        record("c", 3)
    assert (outer, inner) == ([("a", 1), ("c", 3)], [("b", 2)])
    with pytest.raises(RuntimeError), recording():
        raise RuntimeError
    assert not is_recording()
