"""The second route: tf2onnx, on TensorFlow, verified like the first."""

import keras
import pytest
from keras import layers

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import export
from tests.helpers import randomise


def small_model():
    x = keras.Input((None, 7), name="x")
    y = layers.LayerNormalization()(layers.Dense(11, activation="tanh")(x))
    return randomise(keras.Model(x, layers.Dense(5)(y), name="small"))


@pytest.mark.backend_free
def test_route(tmp_path):
    pytest.importorskip("tf2onnx")
    assert export(small_model(), tmp_path / "small.onnx", route="tf2onnx").worst <= 1e-4


def test_other_backends_are_told(tmp_path):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("this backend has the route")
    with pytest.raises(ExportError, match="KERAS_BACKEND=tensorflow"):
        export(small_model(), tmp_path / "small.onnx", route="tf2onnx")
