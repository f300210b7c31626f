"""What a Keras model of any maker declares stays in its file: dtypes and the order of outputs."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers, ops

from keras_seqattn import runtime
from keras_seqattn.errors import InputError
from keras_seqattn.onnx import build_graph, export
from keras_seqattn.onnx.bundle import write_onnx
from tests.helpers import randomise
from tests.onnx import tiny

INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
DTYPES = (*INTEGERS, "bool", "float32", "float16")


def session_of(model, file):
    write_onnx(build_graph(model), file, inline=True)
    return onnxruntime.InferenceSession(file)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_input_keeps_its_dtype(dtype, tmp_path):
    x = keras.Input((None, 5), dtype=dtype, name="x")
    y = layers.Lambda(lambda x: ops.cast(x, "float32") * 2.0, name="twice")(x)
    model = keras.Model(x, {"y": y, "same": x[:, :, 1:]})
    assert export(model, tmp_path / "bundle").ok
    bundle = runtime.load(tmp_path / "bundle")
    (value,) = bundle.session.get_inputs()
    taken = np.array([[[0, 1, 1, 0, 1]] * 3], dtype)
    outputs = bundle.run({"x": taken})
    assert value.type == {"float32": "tensor(float)"}.get(dtype, f"tensor({dtype})")
    assert outputs["same"].dtype == taken.dtype and (outputs["same"] == taken[:, :, 1:]).all()
    assert outputs["y"].dtype == np.float32 and (outputs["y"] == 2 * taken).all()


def test_values_beyond_the_dtype_are_refused(tmp_path):
    x = keras.Input((5,), dtype="uint8", name="x")
    export(keras.Model(x, ops.cast(x, "float32")), tmp_path / "bundle", verify=False)
    bundle = runtime.load(tmp_path / "bundle")
    with pytest.raises(InputError, match="x must hold integers from 0 to 255"):
        bundle.run({"x": np.full((1, 5), 256)})


OUTPUTS = {
    "argmax": lambda x: ops.argmax(x, axis=-1),
    "top_k": lambda x: ops.top_k(x, 2)[1],
    "comparison": lambda x: x > 0,
    "cast": lambda x: ops.cast(x, "int16"),
    "count": lambda x: ops.sum(ops.cast(x > 0, "int32"), axis=-1),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_has_the_dtype_that_keras_gives(name, tmp_path):
    x = keras.Input((None, 5), name="x")
    model = keras.Model(x, OUTPUTS[name](x))
    session = session_of(model, tmp_path / "model.onnx")
    data = np.random.default_rng(2).normal(size=(2, 3, 5)).astype("float32")
    (actual,) = session.run(None, {"x": data})
    expected = ops.convert_to_numpy(model(data))
    # What Keras declares: on PyTorch it gives indices as int64, and on JAX no int64 at all.
    assert actual.dtype == model.outputs[0].dtype and (actual == expected).all()


def test_our_families_take_and_give_int64(tmp_path):
    export(tiny.encoder("bert"), tmp_path / "bert.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "bert.onnx")
    assert {i.type for i in session.get_inputs()} == {"tensor(int64)"}


def _functional():
    x = keras.Input((5,), name="x")
    made = layers.Dense(3, name="dense")(x)
    named = {name: made + float(i) for i, name in enumerate(("z", "a10", "a2", "m"))}
    return keras.Model(x, named, name="functional")


class _Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.dense = layers.Dense(3, name="dense")

    def call(self, x):
        return {"z": self.dense(x), "a10": self.dense(x) + 1.0, "a2": self.dense(x) + 2.0}


def ordered_models():
    """Models that return a dict, whose order they define."""
    subclassed = _Subclassed()
    subclassed(keras.Input((5,), name="x"))
    models = {"functional": _functional(), "subclassed": subclassed}
    return {name: randomise(model, seed=3) for name, model in models.items()}


def test_outputs_keep_the_order_of_the_model():
    found = {
        name: [o.name for o in build_graph(model).graph.outputs]
        for name, model in ordered_models().items()
    }
    assert found == {"functional": ["z", "a10", "a2", "m"], "subclassed": ["z", "a10", "a2"]}


def test_a_named_output_is_compared_with_its_own(tmp_path):
    assert export(randomise(_functional()), tmp_path / "model.onnx").ok
