import keras
import numpy as np
import pytest

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers import AdditiveAttention, LuongAttention
from keras_seqattn.layers.recording import recording
from tests.helpers import check_layer, randomise, to_numpy
from tests.layers.recurrent_reference import additive_attention, softmax

B, T, S, N, M, A = 3, 5, 7, 11, 13, 17
# A few float32 products of widths up to 17, and a softmax.
TOLERANCE = 1e-5
MASK = np.array([[1, 1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0]], "int32")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def layers():
    return {
        "additive": AdditiveAttention(A),
        "dot": LuongAttention("dot"),
        "general": LuongAttention(),
        "concat": LuongAttention("concat", A),
    }


def inputs(name):
    return {"query": normal(B, T, N), "value": normal(B, S, N if name == "dot" else M, seed=1)}


def expected_row(name, query, values, weights):
    """The context and the probabilities of one query, by the papers."""
    if name in ("additive", "concat"):
        return additive_attention(query, values, weights)
    projected = values if name == "dot" else values @ weights["key/kernel"]
    probabilities = softmax(projected @ query)
    return probabilities @ values, probabilities


def definition(name, layer, query, value, mask):
    weights = {
        v.path.removeprefix(f"{layer.path}/"): to_numpy(v.value).astype("float64")
        for v in layer.weights
    }
    contexts = np.zeros((B, T, value.shape[-1]))
    probabilities = np.zeros((B, T, S))
    for b, t in np.ndindex(B, T):
        real = mask[b].astype("bool")
        if real.any():
            contexts[b, t], probabilities[b, t, real] = expected_row(
                name, query[b, t].astype("float64"), value[b, real].astype("float64"), weights
            )
    return contexts, probabilities


@pytest.mark.parametrize("name", layers())
def test_definition(name):
    layer, call = layers()[name], inputs(name)
    layer(**call)
    randomise(layer)
    expected = definition(name, layer, **call, mask=MASK)
    results = to_numpy(layer(**call, attention_mask=MASK, return_attention_scores=True))
    for actual, wanted in zip(results, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=TOLERANCE)
    assert not results[0][2].any() and not results[1][2].any()
    np.testing.assert_array_equal(to_numpy(layer(**call, attention_mask=MASK)), results[0])


@pytest.mark.parametrize("name", ["additive", "general"])
def test_the_contract_of_a_layer(name, tmp_path):
    check_layer(layers()[name], {**inputs(name), "attention_mask": MASK}, tmp_path)


def test_keys_are_computed_once():
    for name, layer in layers().items():
        call = inputs(name)
        layer(**call)
        randomise(layer)
        keys = layer.compute_keys(call["value"])
        np.testing.assert_array_equal(
            to_numpy(layer(**call, keys=keys)), to_numpy(layer(**call)), err_msg=name
        )
        wrong = to_numpy(layer(**call, keys=0.5 * to_numpy(keys)))
        assert np.abs(wrong - to_numpy(layer(**call))).max() > 0.1, name


def test_a_mask_for_each_query():
    layer, call = AdditiveAttention(A), inputs("additive")
    layer(**call)
    randomise(layer)
    mask = normal(B, T, S, seed=2) > 0
    _, scores = to_numpy(layer(**call, attention_mask=mask, return_attention_scores=True))
    assert (scores[mask] > 0).all() and not scores[~mask].any()


def test_implicit_mask_of_the_values():
    ids = np.array([[3, 1, 4, 0, 0], [2, 7, 1, 8, 0]])
    value = keras.layers.Embedding(9, M, mask_zero=True)(ids)
    layer, query = AdditiveAttention(A), normal(2, T, N)
    masked = to_numpy(layer(query, value))
    explicit = to_numpy(layer(query, to_numpy(value), attention_mask=ids != 0))
    np.testing.assert_array_equal(masked, explicit)
    assert np.abs(masked - to_numpy(layer(query, to_numpy(value)))).max() > 1e-3


def test_one_source_position():
    layer, call = AdditiveAttention(A), inputs("additive")
    out = to_numpy(layer(call["query"], call["value"][:, :1]))
    np.testing.assert_array_equal(out, np.repeat(call["value"][:, :1], T, axis=1))


def test_symbolic_shapes():
    query, value = keras.Input((None, N)), keras.Input((None, M))
    out, scores = AdditiveAttention(A)(query, value, return_attention_scores=True)
    assert out.shape == (None, None, M) and scores.shape == (None, None, None)


def test_recorded_scores():
    layer, call = LuongAttention(), inputs("general")
    _, scores = layer(**call, attention_mask=MASK, return_attention_scores=True)
    with recording() as records:
        layer(**call, attention_mask=MASK)
    assert [recorded for recorded, _ in records] == [layer]
    np.testing.assert_array_equal(to_numpy(records[0][1]), to_numpy(scores))


def test_what_is_not_possible_is_named():
    with pytest.raises(ConfigError, match="'cosine'; use 'dot', 'general' or 'concat'"):
        LuongAttention("cosine")
    with pytest.raises(ConfigError, match="not 11 and 13; use 'general'"):
        LuongAttention("dot")(**inputs("general"))
