"""Attention layers of Keras with every argument, and with queries that may look at nothing."""

import keras
import numpy as np
import pytest
from keras import layers

from tests.onnx.layers.agree import check, normal, operators

MULTI_HEAD = {
    "plain": {},
    "scored": {"value_dim": 5, "dropout": 0.2, "output_shape": (2, 3)},
    "window": {"sliding_window": 2, "use_gate": True, "use_bias": False},
}


def multi_head(**settings):
    return layers.MultiHeadAttention(3, 4, **settings)


def grouped(**settings):
    return layers.GroupQueryAttention(6, 4, 2, **settings)


# The last row of each has a query, or a key, that nothing may look at.
MASKS = {
    "query_mask": np.array([[1, 1, 0], [0, 0, 0]], bool),
    "value_mask": np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool),
    "attention_mask": np.array([[[1, 0, 1, 1]] * 3, [[0, 1, 1, 0], [0] * 4, [1] * 4]], bool),
}


def attended(make, widths):
    """One model: layers of `make` called in every way, on inputs of different lengths."""
    q, v, k = (keras.Input((None, n), name=name) for n, name in zip(widths, "qvk", strict=True))
    masks = {
        name: keras.Input((None,) * (array.ndim - 1), dtype="bool", name=name)
        for name, array in MASKS.items()
    }
    outputs = [make()(q, v), make()(q, v, k)]
    calls = [
        {"use_causal_mask": True},
        {"attention_mask": masks["attention_mask"]},
        {"attention_mask": masks["attention_mask"], "use_causal_mask": True},
        {name: masks[name] for name in ("query_mask", "value_mask")},
        {"query_mask": masks["query_mask"]},
    ]
    for given in calls:
        outputs.append(make()(q, v, **given))
    outputs += make()(q, v, return_attention_scores=True, **calls[3])
    feed = {
        name: normal(2, length, n, seed=n)
        for name, length, n in zip("qvk", (3, 4, 4), widths, strict=True)
    }
    return keras.Model({"q": q, "v": v, "k": k, **masks}, outputs), feed | MASKS


@pytest.mark.parametrize("name", MULTI_HEAD)
def test_multi_head_attention(name):
    check(*attended(lambda: multi_head(**MULTI_HEAD[name]), (6, 7, 8)))


def test_grouped_query_attention():
    check(*attended(lambda: grouped(use_gate=True), (6, 6, 6)))


@pytest.mark.backend_free
@pytest.mark.parametrize("make", [multi_head, grouped])
def test_one_node_and_one_mask_for_all_layers(make):
    x = keras.Input((None, 6), name="x")
    mask = keras.Input((None,), dtype="bool", name="mask")
    y = x
    for _ in range(2):
        y = make()(y, y, value_mask=mask)
    feed = {"x": normal(2, 3, 6), "mask": MASKS["query_mask"]}
    found = operators(check(keras.Model({"x": x, "mask": mask}, y), feed))
    assert found.count("Attention") == 2 and found.count("Where") == 1


def test_attention_and_additive_attention():
    q, v = keras.Input((None, 6), name="q"), keras.Input((None, 6), name="v")
    q_mask = keras.Input((None,), dtype="bool", name="query_mask")
    v_mask = keras.Input((None,), dtype="bool", name="value_mask")
    outputs = []
    for layer in (
        layers.Attention(use_scale=True, dropout=0.1),
        layers.Attention(score_mode="concat"),
        layers.AdditiveAttention(),
        layers.AdditiveAttention(use_scale=False),
    ):
        given = {"mask": [q_mask, v_mask], "use_causal_mask": True}
        outputs += layer([q, v], return_attention_scores=True, **given)
        outputs.append(layer([q, v, v]))
    model = keras.Model([q, v, q_mask, v_mask], outputs)
    feed = {"q": normal(2, 3, 6), "v": normal(2, 4, 6, seed=1)}
    check(model, feed | {name: MASKS[name] for name in ("query_mask", "value_mask")})


def test_attention_over_an_inner_axis():
    x = keras.Input((5, None, 6), name="x")
    check(keras.Model(x, multi_head(attention_axes=(2,))(x, x)), {"x": normal(2, 5, 3, 6)})
