"""Models of keras-hub, which has no export to ONNX of its own, through ours."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph, export
from keras_seqattn.onnx.bundle import write_onnx
from tests.helpers import randomise

# CI installs it, see .ci/run.
keras_hub = pytest.importorskip("keras_hub", reason="needs pip install --no-deps keras-hub")

SMALL = {"vocabulary_size": 97, "num_layers": 2, "hidden_dim": 24, "intermediate_dim": 40}
BACKBONES = {
    "BertBackbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "DistilBertBackbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "RobertaBackbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "DebertaV3Backbone": SMALL | {"num_heads": 2, "max_sequence_length": 64, "bucket_size": 16},
    "GPT2Backbone": SMALL | {"num_heads": 2, "max_sequence_length": 64},
    "T5Backbone": SMALL | {"num_heads": 2},
    "LlamaBackbone": SMALL | {"num_query_heads": 4, "num_key_value_heads": 2},
}


# Its layer calls TensorFlow itself where Keras runs on it.
OF_THE_BACKEND = {("DebertaV3Backbone", "tensorflow")}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone(name, tmp_path):
    model = randomise(getattr(keras_hub.models, name)(**BACKBONES[name]), seed=2)
    if (name, keras.backend.backend()) in OF_THE_BACKEND:
        with pytest.raises(ExportError, match="with its backend.*self_attention_layer"):
            export(model, tmp_path / "model.onnx")
        return
    # On JAX each length is compiled.
    report = export(model, tmp_path / "model.onnx", lengths=[1, 7])
    assert 0 < report.worst <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    types = {i.name: i.type for i in session.get_inputs()}
    assert types == {t.name: f"tensor({t.dtype})" for t in model.inputs}


class Step(layers.Layer):
    """A layer of a decoder that writes one token's keys and values into its cache."""

    def __init__(self, decoder, **kwargs):
        super().__init__(**kwargs)
        self.decoder = decoder

    def call(self, x, cache, position):
        return self.decoder(
            x, self_attention_cache=cache, self_attention_cache_update_index=position
        )

    def compute_output_spec(self, x, cache, position):
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor(cache.shape, cache.dtype)


@pytest.mark.parametrize("position", [0, 3, 10])
def test_a_step_with_a_cache(position, tmp_path):
    backbone = keras_hub.models.LlamaBackbone(**BACKBONES["LlamaBackbone"])
    inputs = [
        keras.Input((1, 24), name="x"),
        keras.Input((2, 11, 2, 6), name="cache"),
        keras.Input(batch_shape=(), dtype="int32", name="position"),
    ]
    model = keras.Model(inputs, Step(backbone.transformer_layers[0], name="step")(*inputs))
    randomise(model, seed=4)
    write_onnx(build_graph(model), tmp_path / "model.onnx", inline=True)
    random = np.random.default_rng(position)
    arrays = [random.normal(size=(3, *t.shape[1:])).astype("float32") for t in inputs[:2]]
    arrays.append(np.array(position, "int32"))
    expected = model(arrays)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    actual = session.run(None, dict(zip(("x", "cache", "position"), arrays, strict=True)))
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, keras.ops.convert_to_numpy(e), rtol=1e-4, atol=1e-5)
