"""Every kind of Keras model exports: Sequential, subclassed, loaded; with its own names."""

import warnings

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers, ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import export, verify
from tests.helpers import randomise


def exported(model, folder, **arguments):
    """(inputs, outputs) of the file, each a dict of name -> (shape, type). The file is verified."""
    path = str(folder / "model.onnx")
    assert export(model, path, **arguments).ok
    session = onnxruntime.InferenceSession(path)
    sides = session.get_inputs(), session.get_outputs()
    return [{value.name: (value.shape, value.type) for value in side} for side in sides]


class Tagger(keras.Model):
    """Takes ids and, perhaps, vectors to add. Returns nested outputs, and None among them."""

    def __init__(self):
        super().__init__()
        self.table, self.head = layers.Embedding(7, 5), layers.Dense(3)

    def call(self, ids, extra=None, training=None):
        x = self.table(ids)
        if extra is not None:
            x = x + extra
        return {"z": [self.head(x), x], "nothing": None, "a": ids}


class OfDict(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        return self.dense(inputs["b"]), self.dense(inputs["a"]["c"])


class Built(keras.Model):
    """Declares both of its arguments in `build`."""

    def build(self, left_shape, right_shape):
        self.kernel = self.add_weight(shape=(left_shape[-1], 3))

    def call(self, left, right):
        return ops.matmul(left, self.kernel) * right


def test_a_sequential_model_has_the_names_of_its_layers(tmp_path):
    model = keras.Sequential([keras.Input((4,), name="x"), layers.Dense(3, name="head")])
    inputs, outputs = exported(model, tmp_path)
    assert inputs == {"x": (["batch_size", 4], "tensor(float)")}
    assert outputs == {"head": (["batch_size", 3], "tensor(float)")}


def test_a_sequential_model_without_an_input_takes_any_batch(tmp_path):
    inner = keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(5)])
    model = keras.Sequential([inner, layers.Dense(3, name="last")])
    with pytest.raises(ExportError, match="not known: call it once on data"):
        export(model, str(tmp_path / "model.onnx"))
    model(np.zeros((2, 4), "float32"))
    inputs, outputs = exported(randomise(model), tmp_path)
    assert inputs == {"inputs": (["batch_size", 4], "tensor(float)")}
    assert outputs == {"last": (["batch_size", 3], "tensor(float)")}


def test_a_signature_builds_a_model_that_was_never_called(tmp_path):
    model = keras.Sequential([layers.Embedding(7, 5), layers.Dense(3, name="last")])
    spec = keras.InputSpec(shape=(None, None), dtype="int32", name="ids")
    inputs, _ = exported(model, tmp_path, input_signature=spec)
    assert inputs == {"ids": (["batch_size", "ids_length"], "tensor(int32)")}


def test_a_subclassed_model_is_known_from_its_call(tmp_path):
    model = Tagger()
    with pytest.raises(ExportError, match="give input_signature="):
        export(model, str(tmp_path / "model.onnx"))
    model(np.zeros((2, 5), "int32"))
    with pytest.warns(UserWarning, match="does not take extra"):
        inputs, outputs = exported(randomise(model), tmp_path)
    assert inputs == {"ids": (["batch_size", 5], "tensor(int32)")}
    assert list(outputs) == ["z/0", "z/1", "a"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert verify(str(tmp_path / "model.onnx"), model).ok


def test_a_signature_gives_all_arguments_and_dynamic_sizes(tmp_path):
    specs = [keras.InputSpec(shape=(None, None), dtype="int64"), np.zeros((1, 1, 5), "float32")]
    inputs, _ = exported(Tagger(), tmp_path, input_signature=specs)
    assert inputs["ids"] == (["batch_size", "ids_length"], "tensor(int64)")
    assert inputs["extra"] == ([1, 1, 5], "tensor(float)")


@pytest.mark.parametrize("symbolic", [False, True])
def test_a_dict_argument_gives_the_names(tmp_path, symbolic):
    def tensor(width):
        return keras.Input((width,)) if symbolic else np.zeros((2, width), "float32")

    model = OfDict()
    model({"b": tensor(4), "a": {"c": tensor(4)}})
    inputs, outputs = exported(randomise(model), tmp_path)
    assert sorted(inputs) == ["a/c", "b"]
    assert list(outputs) == ["output_0", "output_1"]


def test_a_build_may_declare_several_arguments(tmp_path):
    model = Built()
    model(np.zeros((2, 4), "float32"), np.zeros((2, 3), "float32"))
    inputs, _ = exported(model, tmp_path)
    assert {name: shape for name, (shape, _) in inputs.items()} == {
        "left": ["batch_size", 4],
        "right": ["batch_size", 3],
    }


def test_outputs_have_the_names_and_the_order_of_the_model(tmp_path):
    """Outputs may be inputs, equal to each other, scalars, nested, or named like an input."""
    first, second = keras.Input((4,)), keras.Input((4,), name="second")
    scalar = keras.Input(batch_shape=(), name="scalar")
    unused = keras.Input((2,), dtype="uint8", name="unused")
    dense = layers.Dense(3, name="dense")
    outputs = [dense(first), dense(second), first, second, second, scalar]
    model = keras.Model([first, second, scalar, unused], outputs)
    inputs, outputs = exported(randomise(model), tmp_path)
    unnamed = model.layers[0].name
    assert list(inputs) == [unnamed, "second", "scalar", "unused"]
    assert inputs["scalar"] == ([], "tensor(float)")
    assert inputs["unused"] == (["batch_size", 2], "tensor(uint8)")
    own = [f"{unnamed}_output", "second_output", "second_1", "scalar_output"]
    assert list(outputs) == ["dense", "dense_1", *own]


def test_a_dict_of_outputs_keeps_its_order_and_nesting(tmp_path):
    x = keras.Input((4,), name="x")
    outputs = {"z": layers.Dense(3, use_bias=False)(x), "b": x, "a": {"u": [x * 2.0], "c": x + 1.0}}
    model = keras.Model({"x": x}, outputs)
    names = ["z", "b", "a/u/0", "a/c"]
    assert list(exported(model, tmp_path)[1]) == names
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert sorted(exported(loaded, tmp_path)[1]) == sorted(names)


def test_a_trained_and_loaded_model_exports(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Dropout(0.5)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
    model.save(tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5", compile=False)
    for each in (model, loaded):
        exported(each, tmp_path)


def test_an_output_may_be_constant(tmp_path):
    class Constant(layers.Layer):
        def call(self, x):
            return x, ops.convert_to_tensor(np.arange(3, dtype="float32"))

    x = keras.Input((4,), name="x")
    assert list(exported(keras.Model(x, Constant(name="c")(x)), tmp_path)[1].values()) == [
        (["batch_size", 4], "tensor(float)"),
        ([3], "tensor(float)"),
    ]


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ([], "at least one"),
        ("ids", "not 'ids'"),
        ([keras.InputSpec(ndim=2)], "both a shape and a dtype"),
        ([keras.InputSpec(shape=(None, 4, 4), dtype="float32")], "cannot call"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(tmp_path, signature, message):
    model = keras.Sequential([layers.Embedding(7, 5), layers.LSTM(3)])
    with pytest.raises(ExportError, match=message):
        export(model, str(tmp_path / "model.onnx"), input_signature=signature)
