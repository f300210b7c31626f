"""Full attention as a mechanism, and what MultiHeadAttention does with any mechanism."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.layers import ALiBi, DecoderBlock, EncoderBlock, MultiHeadAttention
from keras_seqattn.layers.mechanisms import Full, Mechanism
from tests.helpers import check_layer, to_numpy
from tests.mechanisms import check_mechanism, softmax_attention


@keras.saving.register_keras_serializable(package="tests")
class Average(Mechanism):
    """The mean of the values so far, each times its key's mean: the least with weight and state."""

    def build(self, query_shape, key_shape=None, value_shape=None):
        self.gain = self.add_weight(name="gain", shape=value_shape[-1:], initializer="ones")

    def call(
        self, query, key, value, mask=None, state=None, causal=False, scale=None, training=None
    ):
        seen = ops.ones_like(value[..., :1])
        if mask is not None:
            seen = ops.multiply(seen, ops.reshape(ops.cast(mask, value.dtype), (*mask.shape, 1, 1)))
        value = ops.multiply(value, ops.mean(key, axis=-1, keepdims=True))
        total, count = (0.0, 0.0) if state is None else (ops.expand_dims(x, 1) for x in state)
        total = ops.add(ops.cumsum(ops.multiply(value, seen), axis=1), total)
        count = ops.add(ops.cumsum(seen, axis=1), count)
        out = ops.multiply(ops.divide(total, ops.maximum(count, 1.0)), self.gain)
        out = ops.repeat(out, query.shape[2] // value.shape[2], axis=2)
        out = ops.multiply(out, ops.mean(query, axis=-1, keepdims=True))
        return out if state is None else (out, (total[:, -1], count[:, -1]))

    def state_shapes(self, num_heads, num_key_value_heads, head_dim, value_dim):
        groups = num_key_value_heads
        return {"total": ((groups, value_dim), None), "count": ((groups, 1), None)}


@pytest.mark.parametrize("causal", [False, True])
def test_definition(causal):
    def definition(q, k, v, mask):
        length = q.shape[1]
        band = np.tri(length, dtype=bool) if causal else np.ones((length, length), bool)
        return softmax_attention(q, k, v, band & mask[:, None, None])

    check_mechanism(Full(), definition, (2, 13), causal)


def test_the_harness_notices_a_mistake():
    def definition(q, k, v, mask):
        return softmax_attention(q, k, v, mask[:, None, None], scale=0.5)

    with pytest.raises(AssertionError):
        check_mechanism(Full(), definition, (13,))


def test_dense_is_what_none_is():
    x = np.random.default_rng(0).standard_normal((2, 7, 12)).astype("float32")
    layer, plain = MultiHeadAttention(3, 4, attention=Full()), MultiHeadAttention(3, 4)
    y, bias = layer(x), np.ones((1, 1, 7, 7), "float32")
    plain(x)
    plain.set_weights(layer.get_weights())
    assert np.array_equal(to_numpy(y), to_numpy(plain(x)))
    layer(x, bias=bias)


@pytest.mark.parametrize("block", [EncoderBlock, DecoderBlock])
def test_a_template_in_blocks(block, tmp_path):
    x = np.random.default_rng(0).standard_normal((2, 7, 12)).astype("float32")
    template = Average()
    layer = block(3, 4, 17, attention=template, name="block")
    check_layer(layer, {"x": x}, tmp_path)
    assert [w.path for w in layer.weights if "gain" in w.path] == ["block/attention/mechanism/gain"]
    assert not template.built


def test_state():
    x = np.random.default_rng(0).standard_normal((2, 7, 12)).astype("float32")
    mask = np.array([[1] * 7, [0, 0, 1, 1, 1, 1, 1]], "int32")
    block = DecoderBlock(4, 3, 17, num_key_value_heads=2, attention=Average())
    expected = to_numpy(block(x, attention_mask=mask))
    shapes = block.state_shapes()
    assert shapes == {"total": ((2, 3), None), "count": ((2, 1), None)}
    state = tuple(np.zeros((2, *shape), "float32") for shape, _ in shapes.values())
    first, state = block(x[:, :4], attention_mask=mask[:, :4], cache=state)
    second, state = block(x[:, 4:], attention_mask=mask[:, 4:], cache=state)
    actual = np.concatenate([to_numpy(first), to_numpy(second)], axis=1)
    np.testing.assert_allclose(actual[mask > 0], expected[mask > 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "call"),
    [
        ({"window": (2, 0)}, {}),
        ({"softcap": 2.0}, {}),
        ({"positions": ALiBi(3)}, {}),
        ({}, {"bias": np.ones((1, 1, 7, 7), "float32")}),
        ({}, {"return_attention_scores": True}),
        ({}, {"cache_position": 0}),
    ],
    ids=["window", "softcap", "alibi", "bias", "scores", "cache_position"],
)
def test_what_only_dense_attention_has_is_refused(settings, call):
    x = np.zeros((2, 7, 12), "float32")
    with pytest.raises(ValueError, match="Average|attention="):
        MultiHeadAttention(3, 4, attention=Average(), **settings)(x, **call)


def test_dense_has_no_state():
    with pytest.raises(ValueError, match="Full has no state"):
        Full().state_shapes(1, 1, 2, 2)
