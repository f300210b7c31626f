"""Our layers in functional models of one's own: every variation of attention exports and agrees."""

import keras
import pytest

from keras_seqattn import layers
from keras_seqattn.onnx import build_graph, export
from tests.helpers import randomise

WIDTH = 33

VARIATIONS = {
    "plain": {},
    "causal": {"causal": True},
    "grouped": {"num_key_value_heads": 2, "causal": True},
    "window": {"window": (3, 2)},
    "causal_window": {"causal": True, "window": (2, None)},
    "scale": {"scale": 0.3},
    "softcap": {"softcap": 2.0, "causal": True},
    "sinks": {"sinks": True},
    "value_dim": {"value_dim": 13},
    "output_dim": {"output_dim": 17, "use_output_bias": False},
    "norms": {"query_norm": "rms_norm", "key_norm": "layer_norm"},
    "rotary": {"positions": layers.RotaryPositions(8, max_position=256), "causal": True},
    "rotary_interleaved": {
        "positions": layers.RotaryPositions(8, max_position=256, interleaved=True)
    },
    "rotary_partial": {"positions": layers.RotaryPositions(8, max_position=256, fraction=0.5)},
    "alibi": {"positions": layers.ALiBi(4), "causal": True},
}


def attention_model(**settings):
    x = keras.Input((None, WIDTH), name="x")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    attention = layers.MultiHeadAttention(4, 8, name="attention", **settings)
    y = attention(x, attention_mask=mask)
    return randomise(keras.Model({"x": x, "attention_mask": mask}, y, name="own"), seed=4)


@pytest.mark.parametrize("name", VARIATIONS)
def test_attention(name, tmp_path):
    model = attention_model(**VARIATIONS[name])
    for target in ("portable", "ort"):
        report = export(model, tmp_path / "m.onnx", target=target)
        assert 0 < report.worst <= 1e-4


@pytest.mark.parametrize("name", ["plain", "grouped", "window", "rotary", "alibi", "value_dim"])
def test_attention_is_one_node(name):
    names = [n.op_type for n in build_graph(attention_model(**VARIATIONS[name])).graph]
    assert names.count("Attention") == 1 and "Softmax" not in names


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"softcap": 2.0}, {"sinks": True}, {"window": (2, 0)}, {"num_key_value_heads": 1}],
    ids=lambda s: next(iter(s), "plain"),
)
def test_attention_with_a_cache(settings, target, tmp_path):
    settings = {"num_key_value_heads": 2, **settings}
    x = keras.Input((None, WIDTH), name="x")
    shape = (settings["num_key_value_heads"], None, 8)
    past = [keras.Input(shape, name=f"past_{part}") for part in ("key", "value")]
    attention = layers.MultiHeadAttention(4, 8, causal=True, name="attention", **settings)
    y, (key, value) = attention(x, cache=tuple(past))
    model = keras.Model([x, *past], {"y": y, "present_key": key, "present_value": value})
    report = export(randomise(model, seed=6), tmp_path / "m.onnx", target=target)
    assert 0 < report.worst <= 1e-4


def test_cross_attention(tmp_path):
    x, context = keras.Input((None, WIDTH), name="x"), keras.Input((None, 21), name="context")
    y = layers.MultiHeadAttention(4, 8, name="attention")(x, context)
    model = randomise(keras.Model([x, context], y), seed=4)
    names = [n.op_type for n in build_graph(model, "ort").graph]
    # Keys and values come from one packed projection of the context.
    assert names.count("MatMul") == 3 and names.count("Split") == 1
    assert export(model, tmp_path / "m.onnx").worst <= 1e-4


@pytest.mark.parametrize("normalize_first", [False, True])
def test_blocks_and_positions(normalize_first, tmp_path):
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    x = layers.TokenEmbedding(97, 32, name="tokens")(ids)
    x = x + layers.PositionEmbedding(256, 32, name="positions")(x)
    x = x + layers.SinusoidalPositions(32, name="sinusoids")(x)
    settings = {"normalize_first": normalize_first, "dropout": 0.1}
    x = layers.EncoderBlock(4, 8, 47, name="encoder", **settings)(x)
    x = layers.DecoderBlock(4, 8, 47, cross_attention=True, name="decoder", **settings)(x, x)
    model = randomise(keras.Model(ids, x), seed=4)
    assert export(model, tmp_path / "m.onnx").worst <= 1e-4
