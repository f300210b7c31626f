"""The second route: tf2onnx, on TensorFlow, verified like the first."""

import keras
import onnxruntime
import pytest
from keras import layers

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import compare_routes, export
from tests.helpers import randomise


def small_model():
    x = keras.Input((None, 7), name="x")
    y = layers.LayerNormalization()(layers.Dense(11, activation="tanh")(x))
    return randomise(keras.Model(x, layers.Dense(5)(y), name="small"))


@pytest.mark.backend_free
def test_route(tmp_path):
    pytest.importorskip("tf2onnx")
    assert export(small_model(), tmp_path / "small.onnx", route="tf2onnx").worst <= 1e-4


@pytest.mark.backend_free
def test_names_are_those_of_the_first_route(tmp_path):
    """Of nested outputs, of an output with the name of an input, and of a Sequential model."""
    x = keras.Input((None, 5), name="x")
    nested = {"z": layers.Dense(3)(x), "x": x * 2.0, "a": {"u": [x + 1.0, x]}}
    models = keras.Model({"x": x}, nested), keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    for model in models:
        sides = []
        for route in ("trace", "tf2onnx"):
            export(model, tmp_path / "small.onnx", route=route)
            session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
            both = session.get_inputs(), session.get_outputs()
            sides.append([[value.name for value in side] for side in both])
        assert sides[0] == sides[1]


def test_both_routes_in_one_table():
    model = small_model()
    routes = compare_routes(model)
    trace, other = str(routes).splitlines()[1:]
    assert routes[0].ok and routes[0].error <= 1e-4 and routes[0].nodes > 2
    assert routes[0].opset == 23 and routes[0].size > 4 * model.count_params()
    assert trace.startswith("trace") and trace.endswith("equals Keras")
    if keras.backend.backend() == "tensorflow":
        assert routes[1].ok and other.endswith("equals Keras")
    else:
        assert "KERAS_BACKEND=tensorflow" in other and not routes[1].ok


def test_other_backends_are_told(tmp_path):
    if keras.backend.backend() == "tensorflow":
        pytest.skip("this backend has the route")
    with pytest.raises(ExportError, match="KERAS_BACKEND=tensorflow"):
        export(small_model(), tmp_path / "small.onnx", route="tf2onnx")
