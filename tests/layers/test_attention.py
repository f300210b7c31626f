import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.layers import ALiBi, MultiHeadAttention, RotaryPositions
from keras_seqattn.layers.mechanisms import Local
from keras_seqattn.layers.normalization import ZeroCenteredRMSNormalization
from keras_seqattn.ops import alibi_slopes
from tests.helpers import check_layer, randomise, to_numpy
from tests.ops import reference
from tests.ops.reference import HEADS

B, T, S, M, C, D, E = 2, 5, 7, 17, 13, 4, 3
SLOTS = 19
# Two float32 projections around the attention, of values up to about ten.
TOLERANCE = 1e-4


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def dense(layer, x):
    kernel, *bias = (np.asarray(w, "float64") for w in layer.get_weights())
    return x @ kernel + (bias[0] if bias else 0.0)


def expected_output(layer, query, value=None, position_ids=None, **options):
    """The layer's definition, from its weights, in float64."""
    value = query if value is None else value
    (b, t, _), s = query.shape, value.shape[1]
    groups = layer.num_key_value_heads
    q = dense(layer.query, query).reshape(b, t, layer.num_heads, -1)
    q, gate = q[..., : layer.head_dim], q[..., layer.head_dim :]
    k = dense(layer.key, value).reshape(b, s, groups, layer.head_dim)
    v = dense(layer.value, value).reshape(b, s, groups, layer.value_dim)
    if layer.query_norm is not None:
        q, k = (
            x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * norm_factor(norm)
            for x, norm in ((q, layer.query_norm), (k, layer.key_norm))
        )
    if isinstance(layer.positions, RotaryPositions):
        position_ids = np.tile(np.arange(t), (b, 1)) if position_ids is None else position_ids
        cos, sin = (table[position_ids] for table in layer.positions.tables())
        q, k = (reference.rotary(x, cos, sin) for x in (q, k))
    if isinstance(layer.positions, ALiBi):
        distance = np.arange(s)[None] - np.arange(t)[:, None]
        slopes = alibi_slopes(layer.num_heads)
        options["bias"] = -slopes[None, :, None, None] * np.abs(distance)
    if layer.sinks is not None:
        options["sinks"] = to_numpy(layer.sinks.value)
    out, scores = reference.attention(
        q,
        k,
        v,
        causal=layer.causal,
        window=layer.window,
        scale=layer.scale,
        softcap=layer.softcap,
        **options,
    )
    if layer.output_gate:
        out = out.reshape(gate.shape) / (1 + np.exp(-gate))
    return dense(layer.output_dense, out.reshape(b, t, -1)), scores


def norm_factor(norm):
    centred = isinstance(norm, ZeroCenteredRMSNormalization)
    return norm.get_weights()[0] + 1.0 * centred


def build(heads=6, groups=2, **options):
    layer = MultiHeadAttention(heads, D, groups, **options)
    layer(normal(B, T, M))
    return randomise(layer, seed=3)


VARIANTS = {
    "plain": {},
    "causal": {"causal": True, "use_bias": False},
    "output_bias": {"use_bias": False, "use_output_bias": True, "output_dim": C},
    "window": {"causal": True, "window": (2, 0), "value_dim": E},
    "options": {"scale": 0.3, "softcap": 1.7, "sinks": True},
    "rotary": {"causal": True, "positions": RotaryPositions(D, max_position=SLOTS)},
    "alibi": {"causal": True, "positions": ALiBi(6)},
    "gate": {
        "output_gate": True,
        "value_dim": E,
        "query_norm": "zero_centered_rms_norm",
        "key_norm": "zero_centered_rms_norm",
    },
    "norms": {"query_norm": "rms_norm", "key_norm": "rms_norm", "layer_norm_epsilon": 1e-6},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_definition(name):
    layer = build(**VARIANTS[name])
    x, mask = normal(B, T, M, seed=1), np.array([[1, 1, 1, 1, 0], [0, 1, 1, 1, 1]])
    expected, probabilities = expected_output(layer, x, mask=mask)
    out, scores = to_numpy(layer(x, attention_mask=mask, return_attention_scores=True))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores, probabilities, rtol=0, atol=TOLERANCE)
    out = to_numpy(layer(x, attention_mask=mask))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("heads, groups", HEADS)
def test_heads(heads, groups):
    layer = build(heads, groups)
    x = normal(B, T, M, seed=1)
    expected, _ = expected_output(layer, x)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=0, atol=TOLERANCE)


def test_cross_attention_to_another_width():
    layer = MultiHeadAttention(6, D, 2, value_dim=E)
    x, context = normal(B, T, M), normal(B, S, C, seed=1)
    layer(x, context)
    randomise(layer)
    mask = normal(B, T, S, seed=2) > -0.7
    expected, probabilities = expected_output(layer, x, context, mask=mask)
    out, scores = to_numpy(layer(x, context, attention_mask=mask, return_attention_scores=True))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores, probabilities, rtol=0, atol=TOLERANCE)
    inputs = keras.Input((None, M)), keras.Input((None, C))
    out, scores = layer(*inputs, return_attention_scores=True)
    assert out.shape == (None, None, M) and scores.shape == (None, 6, None, None)


def test_position_ids_and_bias():
    layer = build(positions=RotaryPositions(D, max_position=SLOTS))
    x, bias = normal(B, T, M, seed=1), normal(1, 6, T, T, seed=2)
    rows = np.array([[0, 0, 1, 2, 3], [6, 7, 8, 9, 10]])
    expected, _ = expected_output(layer, x, position_ids=rows, bias=bias)
    out = to_numpy(layer(x, position_ids=rows, bias=bias))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)


def test_implicit_mask_of_the_keys_and_its_override():
    ids = np.array([[3, 1, 4, 0, 0], [2, 7, 1, 8, 0]])
    embedding = keras.layers.Embedding(9, M, mask_zero=True)
    layer = MultiHeadAttention(6, D, 2)
    x = embedding(ids)
    masked = to_numpy(layer(x))
    plain = to_numpy(x)
    explicit = to_numpy(layer(plain, attention_mask=ids != 0))
    np.testing.assert_array_equal(masked, explicit)
    everything = to_numpy(layer(x, attention_mask=np.ones_like(ids)))
    np.testing.assert_array_equal(everything, to_numpy(layer(plain)))
    assert np.abs(everything - explicit).max() > 1e-4
    crossed = to_numpy(layer(plain[:, :3], x))
    np.testing.assert_array_equal(
        crossed, to_numpy(layer(plain[:, :3], plain, attention_mask=ids != 0))
    )
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, layer(embedding(inputs)))
    np.testing.assert_allclose(to_numpy(model(ids)), explicit, rtol=0, atol=1e-6)


def test_a_context_is_cached_once():
    """At once, in two parts, after nothing or all of it is cached, or from the cache alone."""
    layer = MultiHeadAttention(6, D, 2, value_dim=E)
    x, context = normal(B, T, M), normal(B, S, C, seed=1)
    mask = np.array([[1, 1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1, 1]])
    layer(x, context)
    randomise(layer)
    expected, scores = to_numpy(
        layer(x, context, attention_mask=mask, return_attention_scores=True)
    )
    cache = tuple(np.zeros((B, 2, 0, n), "float32") for n in (D, E))
    _, cache = layer(x, context[:, :3], attention_mask=mask[:, :3], cache=cache)
    for part in (context[:, 3:], context[:, :0]):
        out, cache, again = layer(
            x, part, attention_mask=mask, cache=cache, return_attention_scores=True
        )
        np.testing.assert_allclose(to_numpy(out), expected, rtol=0, atol=1e-5)
        np.testing.assert_allclose(to_numpy(again), scores, rtol=0, atol=1e-5)
    for kept, whole in zip(cache, layer.project_context(context), strict=True):
        np.testing.assert_allclose(to_numpy(kept), to_numpy(whole), rtol=0, atol=1e-5)
    assert cache[0].shape == (B, 2, S, D) and cache[1].shape == (B, 2, S, E)
    out, again = layer(
        x, attention_mask=mask, cache=cache, frozen_cache=True, return_attention_scores=True
    )
    np.testing.assert_allclose(to_numpy(out), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(to_numpy(again), scores, rtol=0, atol=1e-5)


def test_symbolic_shapes_with_a_context_cache():
    layer = MultiHeadAttention(6, D, 2, value_dim=E)
    x, context = keras.Input((T, M)), keras.Input((S, C))
    cache = keras.Input((2, 3, D)), keras.Input((2, 3, E))
    out, present, scores = layer(x, context, cache=cache, return_attention_scores=True)
    assert out.shape == (None, T, M) and scores.shape == (None, 6, T, 3 + S)
    assert [x.shape for x in present] == [(None, 2, 3 + S, D), (None, 2, 3 + S, E)]
    out, scores = layer(x, cache=cache, frozen_cache=True, return_attention_scores=True)
    assert out.shape == (None, T, M) and scores.shape == (None, 6, T, 3)


@pytest.mark.parametrize("positions", [{}, {"a": 1}, "rotary", 3])
def test_what_are_no_positions_is_refused_where_it_is_given(positions):
    with pytest.raises(ValueError, match="positions must be a RotaryPositions or an ALiBi"):
        MultiHeadAttention(2, 4, positions=positions)


def test_a_frozen_cache_takes_no_positions():
    layer = build(positions=ALiBi(6))
    cache = normal(B, 2, S, D, seed=1), normal(B, 2, S, D, seed=2)
    with pytest.raises(ValueError, match="takes no positions"):
        layer(normal(B, T, M), cache=cache, frozen_cache=True)


CACHED = {
    "rotary": {"positions": RotaryPositions(D, max_position=SLOTS)},
    "window": {"window": (2, 0), "value_dim": E},
    "alibi": {"positions": ALiBi(6), "sinks": True},
    "dropout": {"dropout": 0.5},
}
STEPS = ((0, 3), (3, 4), (4, 5))


@pytest.mark.parametrize("name", CACHED)
def test_growing_cache(name):
    layer = build(causal=True, **CACHED[name])
    x = normal(B, T, M, seed=1)
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    full = to_numpy(layer(x, attention_mask=mask))
    cache = tuple(np.zeros((B, 2, 0, n), "float32") for n in (D, layer.value_dim))
    for start, stop in STEPS:
        out, cache = layer(x[:, start:stop], attention_mask=mask[:, :stop], cache=cache)
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-5)
    assert cache[0].shape == (B, 2, T, D) and cache[1].shape == (B, 2, T, layer.value_dim)


@pytest.mark.parametrize("name", CACHED)
def test_fixed_cache(name):
    layer = build(causal=True, **CACHED[name])
    x = normal(B, T, M, seed=1)
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    full = to_numpy(layer(x, attention_mask=mask))
    # What lies in slots that are not written yet must not count.
    cache = tuple(normal(B, 2, SLOTS, n, seed=4) for n in (D, layer.value_dim))
    slots = np.pad(mask, [(0, 0), (0, SLOTS - T)], constant_values=1)
    for start, stop in STEPS:
        out, cache = layer(
            x[:, start:stop], attention_mask=slots, cache=cache, cache_position=np.int32(start)
        )
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-5)
    assert cache[0].shape == (B, 2, SLOTS, D)


def test_fixed_cache_without_causality():
    """Every written slot is attended, none after it."""
    layer = build()
    x = normal(B, T, M, seed=1)
    cache = tuple(normal(B, 2, SLOTS, D, seed=n) for n in (4, 5))
    out, _ = layer(x, cache=cache, cache_position=np.array([0], "int32"))
    np.testing.assert_allclose(to_numpy(out), to_numpy(layer(x)), rtol=0, atol=1e-5)


def test_dropout_acts_in_training_only():
    layer = build(dropout=0.4)
    plain = build()
    plain.set_weights([w for w in layer.get_weights() if w.dtype == "float32"])
    x = normal(B, T, M, seed=1)
    expected = to_numpy(plain(x))
    np.testing.assert_array_equal(to_numpy(layer(x)), expected)
    out, scores = to_numpy(layer(x, training=True, return_attention_scores=True))
    assert (scores == 0).any() and (scores > 0).any()
    assert np.abs(out - expected).max() > 1e-3


def test_dropout_in_training_with_a_cache_keeps_the_keys():
    layer = build(dropout=0.4, causal=True)
    x = normal(B, T, M, seed=1)
    cache = tuple(np.zeros((B, 2, 0, D), "float32") for _ in range(2))
    _, kept = layer(x, cache=cache)
    _, trained = layer(x, cache=cache, training=True)
    for a, b in zip(kept, trained, strict=True):
        np.testing.assert_array_equal(to_numpy(a), to_numpy(b))


@pytest.mark.parametrize("name", ["plain", "window", "options", "rotary", "norms"])
def test_contract(name, tmp_path):
    layer = MultiHeadAttention(6, D, 2, **VARIANTS[name])
    mask = np.array([[1, 1, 1, 1, 0], [0, 0, 1, 1, 1]])
    check_layer(layer, {"query": normal(B, T, M), "attention_mask": mask}, tmp_path)


def test_contract_with_a_context_cache(tmp_path):
    layer = MultiHeadAttention(6, D, 2, value_dim=E)
    cache = normal(B, 2, 3, D, seed=1), normal(B, 2, 3, E, seed=2)
    inputs = {"query": normal(B, T, M), "value": normal(B, S, C), "cache": cache}
    check_layer(layer, inputs, tmp_path)


def test_contract_with_a_cache(tmp_path):
    positions = RotaryPositions(D, max_position=SLOTS)
    layer = MultiHeadAttention(6, D, 2, value_dim=E, causal=True, positions=positions)
    cache = normal(B, 2, S, D, seed=1), normal(B, 2, S, E, seed=2)
    inputs = {"query": normal(B, T, M), "cache": cache}
    check_layer(layer, inputs, tmp_path)


def test_projections_start_differently():
    initializer = keras.initializers.GlorotUniform()
    layer = MultiHeadAttention(2, D, kernel_initializer=initializer)
    layer(normal(B, T, M))
    query, key = (ops.convert_to_numpy(x.kernel) for x in (layer.query, layer.key))
    assert np.abs(query - key).max() > 0.05


@pytest.mark.backend_free
def test_groups_must_divide_heads():
    with pytest.raises(ValueError, match="must divide num_heads"):
        MultiHeadAttention(5, D, 2)


def test_global_tokens_need_a_mechanism_that_has_them():
    x, mask = normal(B, T, M), np.ones((B, T), "int32")
    for attention in (None, Local(1, 1)):
        layer = MultiHeadAttention(2, D, attention=attention)
        with pytest.raises(ValueError, match="global_attention_mask needs"):
            layer(x, global_attention_mask=mask)


def test_the_implicit_mask_reaches_a_state():
    embedding = keras.layers.Embedding(9, M, mask_zero=True)
    ids, positions = np.array([[0, 0, 1, 4], [2, 7, 1, 8]]), np.arange(4)[None]
    layer = MultiHeadAttention(2, D, causal=True, attention=Local(3))
    layer.build((None, None, M))
    cache = tuple(
        np.zeros((2, *shape), dtype or "float32") for shape, dtype in layer.state_shapes().values()
    )
    call = {"cache": cache, "position_ids": positions}
    x = embedding(ids)
    implicit, state = layer(x, **call)
    explicit, expected = layer(to_numpy(x), attention_mask=(ids != 0).astype("int32"), **call)
    np.testing.assert_array_equal(to_numpy(implicit), to_numpy(explicit))
    np.testing.assert_array_equal(to_numpy(state[2]), to_numpy(expected[2]))
    assert to_numpy(state[2]).tolist() == [[0, 1, 1], [1, 1, 1]]
