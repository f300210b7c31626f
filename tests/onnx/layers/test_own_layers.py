"""Layers of users: what they may do in a call, and what is refused, with the call and a way out."""

import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph, export
from tests.onnx.apply import Apply
from tests.onnx.layers.agree import check, normal

BACKEND = keras.backend.backend()
if BACKEND == "jax":
    import jax.numpy as library
elif BACKEND == "torch":
    import torch as library
else:
    import tensorflow as library


class Nested(layers.Layer):
    """Nested inputs and outputs, keyword arguments, constants, a loss and a metric."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.metric, self.table = keras.metrics.Mean(), np.arange(5, dtype="float32")
        self.inner = {"dense": layers.Dense(5)}

    def call(self, inputs, scale=1.0, training=None):
        a, (b, c) = inputs["a"], inputs["b"]
        self.metric.update_state(a)
        self.add_loss(ops.mean(a))
        a = self.inner["dense"](a) * (0.0 if training else scale)
        return {"s": a + b, "t": [c + self.table, {"z": a}]}


@keras.saving.register_keras_serializable("tests")
class Doubled(layers.LSTM):
    """A subclass that calls the call of its class."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 2 * super().call(sequences, initial_state, mask=mask, training=training)


class Inverted(layers.Layer):
    """Hands on a mask of its own."""

    supports_masking = True

    def call(self, x, mask=None):
        return x * ops.expand_dims(ops.cast(mask, x.dtype), -1)

    def compute_mask(self, x, mask=None):
        return ops.logical_not(mask)


def test_what_a_layer_may_do():
    x = keras.Input((None, 5), name="x")
    ids = keras.Input((None,), dtype="int32", name="ids")
    made = Nested()({"a": x, "b": [x, layers.Activation("tanh")(x)]}, scale=2.5)
    words = layers.Embedding(11, 5, mask_zero=True)(ids)
    both = layers.Bidirectional(Doubled(3, return_sequences=True))
    twice = keras.Sequential([layers.Dense(5), layers.Dense(5)])
    outputs = [made["s"], *keras.tree.flatten(made["t"]), Doubled(4)(words), both(words)]
    outputs += [layers.LSTM(4)(Inverted()(words)), twice(twice(x))]
    feed = {"x": normal(2, 3, 5), "ids": np.array([[3, 0, 7, 1], [2, 0, 0, 0]])}
    check(keras.Model({"x": x, "ids": ids}, outputs), feed)


class Odd(Exception):
    def __str__(self):
        raise RuntimeError("no text")


def raising(error):
    def function(x):
        raise error

    return function


class Counting(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), name="count", trainable=False)

    def call(self, x):
        self.count.assign(self.count + 1.0)
        return x * self.count


REFUSED = {
    "sin": (lambda x: library.sin(x), r"keras.ops.sin instead of library.sin\(x\) \(line"),
    "numpy": (lambda x: np.mean(x, axis=1), r"keras.ops.mean instead of np.mean\(x, axis=1\)"),
    "method": (lambda x: x.unsqueeze(1), "keras.ops.expand_dims instead of x.unsqueeze"),
    "unknown": (lambda x: library.foo.bar(x), "with keras.ops instead of library.foo"),
    "text": (raising(KeyError("q")), "KeyError: 'q'"),
    "odd": (raising(Odd()), "Odd; while tracing own"),
    "recursion": (raising(RecursionError("deep")), "deep; while tracing own"),
    "weight": (lambda x: layers.Dense(5)(x), "own: it makes the weight .* in its call"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    function, message = REFUSED[name]
    x = keras.Input((5,), name="x")
    layer = Apply(function, keras.KerasTensor((None, 5)), name="own")
    with pytest.raises(ExportError, match=message):
        export(keras.Model(x, layer(x)), tmp_path / "m.onnx")


def test_a_new_value_of_a_variable_is_refused_and_not_kept():
    x = keras.Input((5,), name="x")
    layer = Counting(name="counting")
    model = keras.Model(x, layer(x))
    before = float(ops.convert_to_numpy(layer.count))
    with pytest.raises(ExportError, match="counting: it gives its variable count a new value"):
        build_graph(model)
    assert float(ops.convert_to_numpy(layer.count)) == before


def test_an_interrupt_is_no_refusal():
    x = keras.Input((5,), name="x")
    layer = Apply(raising(KeyboardInterrupt()), keras.KerasTensor((None, 5)))
    with pytest.raises(KeyboardInterrupt):
        build_graph(keras.Model(x, layer(x)))


@pytest.mark.skipif(BACKEND != "torch", reason="a module of PyTorch")
def test_a_module_of_another_library_is_refused():
    class Linear(layers.TorchModuleWrapper):
        def compute_output_spec(self, x):
            return keras.KerasTensor((None, 3))

    x = keras.Input((5,), name="x")
    layer = Linear(sys.modules["torch"].nn.Linear(5, 3), name="module")
    with pytest.raises(ExportError, match="module: TorchModuleWrapper .* torch.onnx.export"):
        build_graph(keras.Model(x, layer(x)))
