"""Ordinary Keras models, with none of our layers, export too."""

import keras
import pytest
from keras import layers, ops

from keras_seqattn.onnx import build_graph, export
from tests.helpers import randomise


def encoder(causal=False, dropout=0.0):
    """Keras's own layers in a post-norm block with padding mask."""
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    x = layers.Embedding(97, 24, mask_zero=True, name="embedding")(ids)
    attention = layers.MultiHeadAttention(3, 8, dropout=dropout, name="attention")
    y = attention(x, x, use_causal_mask=causal)
    x = layers.LayerNormalization(name="norm")(layers.Add(name="add")([x, y]))
    y = layers.Dense(24, name="down")(layers.Dense(41, activation="gelu", name="up")(x))
    x = layers.LayerNormalization(name="last")(layers.Add(name="add_2")([x, y]))
    pooled = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(ids, [x, pooled], name="stock")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_transformer(causal, dropout, tmp_path):
    model = randomise(encoder(causal, dropout), seed=5)
    for target in ("portable", "ort"):
        assert export(model, tmp_path / "model.onnx", target=target).ok


def test_projections_of_stock_attention_are_packed():
    names = [n.op_type for n in build_graph(encoder(), "ort").graph if "attention/" in n.name]
    assert names.count("MatMul") == 2 and names.count("Split") == 1 and "Reshape" not in names


def test_rms_normalization(tmp_path):
    x = keras.Input((None, 24), name="x")
    y = layers.RMSNormalization()(layers.Add()([x, layers.Dense(24)(x)]))
    assert export(randomise(keras.Model(x, y)), tmp_path / "model.onnx").ok


def test_grouped_query_attention(tmp_path):
    x = keras.Input((None, 24), name="x")
    y = layers.GroupQueryAttention(6, 4, 2, name="attention")(x, x, use_causal_mask=True)
    assert export(randomise(keras.Model(x, y)), tmp_path / "model.onnx").ok


def test_two_inputs_that_share_a_length(tmp_path):
    a, b = keras.Input((None, 7), name="a"), keras.Input((None, 7), name="b")
    model = keras.Model([a, b], layers.Add()([a, layers.Dense(7)(b)]), name="shared")
    assert export(randomise(model), tmp_path / "model.onnx").ok


def test_tracing_leaves_the_model_as_it_was():
    model = encoder()
    before = model.to_json()
    build_graph(model)
    assert model.to_json() == before


class Scaled(keras.layers.Layer):
    """Arithmetic with the weight on the left, as people write it."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, x):
        return self.scale * x + (self.scale - x) / (2.0 + ops.square(x))


def test_a_layer_of_ones_own(tmp_path):
    x = keras.Input((None, 7), name="x")
    model = randomise(keras.Model(x, Scaled(name="scaled")(x)))
    assert export(model, tmp_path / "model.onnx").ok
