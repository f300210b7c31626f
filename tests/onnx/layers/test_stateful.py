"""Stateful recurrent layers: each state is an input, and the output that it follows."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers, ops

from keras_seqattn.onnx import export
from keras_seqattn.runtime.session import create_session
from tests.helpers import randomise

LAYERS = {
    "lstm": lambda: layers.LSTM(4, return_sequences=True, go_backwards=True, **KEPT),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(4, stateful=True), name="kept"),
    "stack": lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(3)], **KEPT),
    "convolution": lambda: Framed(layers.ConvLSTM1D(2, 2, padding="same", **KEPT)),
}
KEPT = {"stateful": True, "name": "kept"}


class Framed(layers.Wrapper):
    """A convolutional layer over (b, t, 5, 1)."""

    def build(self, shape):
        self.layer.build((*shape, 1))
        super().build()

    def call(self, x):
        return self.layer(ops.expand_dims(x, -1))

    def compute_output_shape(self, shape):
        return self.layer.compute_output_shape((*shape, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_states_go_in_and_out(name, tmp_path):
    x = keras.Input(batch_shape=(2, None, 5), name="x")
    layer = LAYERS[name]()
    # Called twice: the second call begins with the state that the first one left.
    y = layer(x)
    y = [y, layer(ops.negative(x))]
    model = randomise(keras.Model({"x": x}, y), seed=3)
    path = tmp_path / "m.onnx"
    assert export(model, path, lengths=[3]).ok
    session = create_session(path)
    states = session.ports.carried
    assert states and set(states.values()) < {o.name for o in session.get_outputs()}


def test_two_runs_of_the_file_are_two_calls_of_the_layer(tmp_path):
    x = keras.Input(batch_shape=(2, None, 5), name="x")
    layer = layers.GRU(4, stateful=True, name="gru")
    model = randomise(keras.Model(x, layer(x)), seed=3)
    export(model, tmp_path / "m.onnx", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    random, state = np.random.default_rng(0), np.zeros((2, 4), "float32")
    layer.reset_state()
    for _ in range(2):
        steps = random.normal(size=(2, 3, 5)).astype("float32")
        feed = {"x": steps, "gru/rnn_state": state}
        actual, state = session.run(["gru", "gru/new_rnn_state"], feed)
        # float32 rounding over six steps.
        np.testing.assert_allclose(actual, ops.convert_to_numpy(model(steps)), atol=1e-5)
    np.testing.assert_allclose(state, actual)


def test_verification_leaves_the_states_as_they_were(tmp_path):
    x = keras.Input(batch_shape=(2, None, 5), name="x")
    layer = layers.GRU(4, stateful=True)
    model = randomise(keras.Model(x, layer(x)), seed=3)
    layer.states[0].assign(np.full((2, 4), 0.5))
    export(model, tmp_path / "m.onnx", lengths=[3])
    assert np.all(ops.convert_to_numpy(layer.states[0]) == 0.5)
