"""Whole models as people build them, exported without arguments: right at each size."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_seqattn.onnx import export
from tests.helpers import randomise


def text_classifier():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(97, 12, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(7))(
        layers.Bidirectional(layers.LSTM(5, return_sequences=True))(x)
    )
    return keras.Model(ids, layers.Dense(3, activation="softmax")(layers.Dropout(0.3)(x)))


def seq2seq_with_attention():
    source, target = (keras.Input((None,), dtype="int32", name=n) for n in ("source", "target"))
    table = layers.Embedding(53, 8, mask_zero=True)
    encoded, *state = layers.LSTM(6, return_sequences=True, return_state=True)(table(source))
    decoded = layers.LSTM(6, return_sequences=True)(table(target), initial_state=state)
    context = layers.Attention()([decoded, encoded])
    return keras.Model([source, target], layers.Dense(53)(layers.Concatenate()([decoded, context])))


def convolved(x, width):
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def u_net():
    pixels = keras.Input((16, 24, 3), name="pixels")
    first = convolved(pixels, 5)
    low = convolved(layers.MaxPooling2D()(first), 7)
    up = layers.Conv2DTranspose(5, 2, strides=2, padding="same")(low)
    both = convolved(layers.Concatenate()([up, first]), 5)
    return keras.Model(pixels, layers.Conv2D(2, 1, activation="sigmoid")(both))


def conv_lstm():
    frames = keras.Input((None, 5, 7, 3), name="frames")
    x = layers.ConvLSTM2D(4, 3, padding="same", return_sequences=True)(frames)
    return keras.Model(frames, layers.ConvLSTM2D(3, 3, padding="same")(x))


def conformer():
    x = frames = keras.Input((None, 12), name="frames")
    y = layers.Dense(12)(layers.Dense(17, activation="silu")(layers.LayerNormalization()(x)))
    x = layers.Add()([x, 0.5 * y])
    y = layers.LayerNormalization()(x)
    x = layers.Add()([x, layers.MultiHeadAttention(3, 4)(y, y)])
    y = layers.Dense(24)(layers.LayerNormalization()(x))
    y = ops.multiply(y[..., :12], ops.sigmoid(y[..., 12:]))
    y = layers.DepthwiseConv1D(5, padding="same")(y)
    y = layers.Activation("silu")(layers.BatchNormalization()(y))
    x = layers.Add()([x, layers.Dense(12)(y)])
    return keras.Model(frames, layers.LayerNormalization()(x))


@keras.saving.register_keras_serializable("tests")
class Viterbi(layers.Layer):
    """The best tags of a linear-chain CRF, int (b, t), from scores (b, t, n)."""

    def build(self, shape):
        self.transitions = self.add_weight(shape=(shape[-1], shape[-1]), name="transitions")

    def compute_output_spec(self, scores):
        return keras.KerasTensor(scores.shape[:-1], "int32")

    def call(self, scores):
        by_time = ops.transpose(scores, (1, 0, 2))

        def forward(best, score):
            through = best[:, :, None] + self.transitions[None]
            return ops.max(through, 1) + score, ops.argmax(through, 1)

        best, origins = ops.scan(forward, by_time[0], by_time[1:])
        last = ops.cast(ops.argmax(best, -1), "int32")

        def backward(tag, origin):
            before = ops.take_along_axis(ops.cast(origin, "int32"), tag[:, None], 1)[:, 0]
            return before, before

        _, path = ops.scan(backward, last, origins, reverse=True)
        return ops.transpose(ops.concatenate([path, last[None]]))


def tagger_with_crf():
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Bidirectional(layers.LSTM(5, return_sequences=True))(layers.Embedding(31, 8)(ids))
    return keras.Model(ids, Viterbi()(layers.Dense(4)(x)))


class Sampling(layers.Layer):
    """The mean at inference, as usual where a model is deployed."""

    def call(self, inputs, training=None):
        mean, log_variance = inputs
        if training:
            return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean))
        return mean


def variational_autoencoder():
    x = keras.Input((19,), name="x")
    hidden = layers.Dense(11, activation="relu")(x)
    moments = [layers.Dense(3, name="mean")(hidden), layers.Dense(3, name="log_variance")(hidden)]
    decoder = keras.Sequential([layers.Dense(11, activation="relu"), layers.Dense(19)])
    return keras.Model(x, [decoder(Sampling()(moments)), *moments])


class Halved(layers.Layer):
    """Halves everything until the largest number is below 1. Counts how often."""

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype), keras.KerasTensor((), "int32")

    def call(self, x):
        return ops.while_loop(
            lambda x, count: ops.max(ops.abs(x)) >= 1.0,
            lambda x, count: (x * 0.5, count + 1),
            (x, ops.convert_to_tensor(0, "int32")),
        )


def data_dependent_loop():
    x = keras.Input((None, 5), name="x")
    return keras.Model(x, list(Halved()(layers.Dense(7)(x * 40.0))))


def hierarchical():
    words = keras.Input((None, 6), dtype="int32", name="words")
    inner = keras.Sequential([layers.Embedding(41, 8), layers.GRU(5)])
    sentences = layers.TimeDistributed(inner)(words)
    return keras.Model(words, layers.Dense(2)(layers.GRU(4)(sentences)))


def sequential_cnn():
    return keras.Sequential(
        [
            keras.Input((14, 14, 1), name="pixels"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(5, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.SeparableConv2D(7, 3, padding="same", activation="gelu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv1D(8, 3, padding="causal")
        self.norm, self.head = layers.BatchNormalization(), layers.Dense(3)

    def call(self, x, training=None):
        x = self.norm(self.convolution(x), training=training)
        return {"frames": x, "whole": self.head(ops.mean(ops.relu(x), axis=1))}


def subclassed():
    model = Subclassed()
    model(np.zeros((2, 13, 4), "float32"))
    return model


MODELS = [
    text_classifier,
    seq2seq_with_attention,
    u_net,
    conv_lstm,
    conformer,
    tagger_with_crf,
    variational_autoencoder,
    data_dependent_loop,
    hierarchical,
    subclassed,
]


@pytest.mark.parametrize("make", MODELS)
def test_a_model(make, tmp_path):
    model = randomise(make(), seed=3)
    # Over many steps, weights of this size enlarge the last bit to more than the tolerance.
    lengths = [1, 7] if make is conv_lstm else None
    report = export(model, tmp_path / "model.onnx", lengths=lengths)
    assert report.ok and report.worst <= 1e-4 and len(report.cases) > 1


def test_a_sequential_cnn_that_was_saved_and_quantised(tmp_path):
    model = randomise(sequential_cnn(), seed=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert export(loaded, tmp_path / "model.onnx").worst <= 1e-4
    dense = keras.Sequential([keras.Input((23,)), layers.Dense(17, "relu"), layers.Dense(5)])
    randomise(dense, seed=3).quantize("int8")
    assert export(dense, tmp_path / "dense.onnx").worst <= 1e-4
