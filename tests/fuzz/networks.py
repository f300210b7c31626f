"""Random networks of the layers and functions that a user of pictures and tables takes: exported
without a verification, and compared here."""

import keras
import numpy as np
import onnxruntime
from keras import layers, ops

from keras_seqattn.onnx import export
from tests.fuzz.harness import attempt
from tests.helpers import randomise

# float32 through some layers whose weights make much of small differences.
TOLERANCE = 2e-3
_SIZES = ((2, 9, 12), (1, 8, 7), (3, 16, 10))


def case(random, folder):
    """Build, export, run at three sizes."""
    try:
        model = _network(random)
        randomise(model, seed=int(random.integers(1 << 30)))
        batches = [_input(model, sizes, random) for sizes in _SIZES]
        expected = [keras.tree.flatten(model(x, training=False)) for x in batches]
    except Exception:  # whatever Keras says of a model that cannot be
        return "not built"
    target = str(random.choice(["ort", "portable"]))
    path = folder / "model.onnx"
    attempt(export, model, path, target=target, verify=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for x, wanted in zip(batches, expected, strict=True):
        given = session.run(None, {session.get_inputs()[0].name: x})
        for a, b in zip(wanted, given, strict=True):
            a = keras.ops.convert_to_numpy(a).astype("float64")
            assert a.shape == b.shape, f"{b.shape}, {a.shape} in Keras: {_described(model)}"
            assert np.array_equal(np.isnan(a), np.isnan(b)), f"NaN: {_described(model)}"
            apart = np.abs(np.nan_to_num(a) - np.nan_to_num(b.astype("float64"))).max(initial=0)
            scale = max(1, np.abs(np.nan_to_num(a)).max(initial=0))
            assert apart <= TOLERANCE * scale, f"{apart} of {scale}: {_described(model)}"
    return "agrees"


def _described(model):
    return ", ".join(f"{type(x).__name__} {x.name}" for x in model.layers)


def _input(model, sizes, random):
    shape = [n if n is not None else size for n, size in zip(model.inputs[0].shape, sizes)]  # noqa: B905
    shape += list(model.inputs[0].shape[len(shape) :])
    return random.standard_normal(shape).astype("float32")


def _network(random):
    """A functional model of one picture or one sequence of vectors."""

    def choice(*options):
        return options[random.integers(len(options))]

    shape = choice((None, None, 4), (None, None, 4), (None, 12, 4), (None, 6))
    x = start = keras.Input(shape, name="x")
    outputs = []
    for _ in range(random.integers(1, 7)):
        steps = {4: _PICTURES, 3: _SEQUENCES, 2: _VECTORS}.get(len(x.shape), ()) + _ANY
        y = choice(*steps)(x, choice)
        # A residual, where the shapes allow it.
        x = layers.Add()([x, y]) if y.shape == x.shape and random.random() < 0.3 else y
        if random.random() < 0.15:
            outputs.append(x)
    return keras.Model(start, [*outputs, x])


_PICTURES = (
    lambda x, c: layers.Conv2D(
        c(3, 4, 8), c(1, 2, 3), c(1, 1, 2), c("same", "valid"), activation=c(None, "relu", "silu")
    )(x),
    lambda x, c: layers.Conv2D(4, 3, 1, "same", dilation_rate=c(1, 2), use_bias=c(True, False))(x),
    lambda x, c: layers.Conv2DTranspose(4, c(2, 3), c(1, 2), c("same", "valid"))(x),
    lambda x, c: layers.DepthwiseConv2D(3, c(1, 2), c("same", "valid"))(x),
    lambda x, c: layers.SeparableConv2D(4, 3, 1, "same")(x),
    lambda x, c: layers.MaxPooling2D(c(2, 3), c(1, 2), c("same", "valid"))(x),
    lambda x, c: layers.AveragePooling2D(c(2, 3), c(1, 2), c("same", "valid"))(x),
    lambda x, c: layers.BatchNormalization()(x),
    lambda x, c: layers.BatchNormalization()(layers.Conv2D(4, 3, 1, c("same", "valid"))(x)),
    lambda x, c: layers.GroupNormalization(c(1, -1))(x),
    lambda x, c: layers.UpSampling2D(2, interpolation=c("nearest", "bilinear"))(x),
    lambda x, c: layers.ZeroPadding2D(c(1, (1, 2)))(x),
    lambda x, c: layers.Cropping2D(1)(x),
    lambda x, c: layers.Resizing(6, 5)(x),
    lambda x, c: layers.GlobalAveragePooling2D(keepdims=c(True, False))(x),
    lambda x, c: layers.GlobalMaxPooling2D()(x),
    lambda x, c: layers.SpatialDropout2D(0.2)(x),
    lambda x, c: layers.RandomFlip()(x),
    lambda x, c: layers.TimeDistributed(layers.Dense(3))(x),
    lambda x, c: layers.Concatenate()([x, ops.flip(x, axis=1)]),
    lambda x, c: ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1])),
    lambda x, c: ops.max(x, axis=c(1, 2)),
)  # fmt: skip
_SEQUENCES = (
    lambda x, c: layers.Conv1D(4, c(1, 3), c(1, 2), c("same", "causal", "valid"))(x),
    lambda x, c: layers.MaxPooling1D(2, padding="same")(x),
    lambda x, c: layers.LSTM(3, return_sequences=c(True, False))(x),
    lambda x, c: layers.Bidirectional(layers.GRU(2, return_sequences=True))(x),
    lambda x, c: layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=c(True, False)),
    lambda x, c: layers.GlobalAveragePooling1D()(x),
    lambda x, c: layers.UpSampling1D(2)(x),
    lambda x, c: ops.sort(x, axis=c(1, -1)),
    lambda x, c: ops.take_along_axis(x, ops.argsort(x, axis=1), axis=1),
    lambda x, c: ops.top_k(x, 2)[0],
    lambda x, c: ops.cumsum(x, axis=1),
    lambda x, c: ops.roll(x, 1, axis=1),
    lambda x, c: ops.median(x, axis=-1, keepdims=True),
)
_VECTORS = (
    lambda x, c: layers.Dense(5, activation=c(None, "relu", "mish", "softmax", "hard_silu"))(x),
    lambda x, c: layers.RepeatVector(3)(x),
    lambda x, c: ops.matmul(x[:, :, None], x[:, None]),
    lambda x, c: layers.Discretization([-0.5, 0.0, 1.0])(x),
)
_ANY = (
    lambda x, c: layers.Activation(c("relu", "tanh", "elu", "gelu", "softplus", "squareplus"))(x),
    lambda x, c: layers.PReLU(shared_axes=list(range(1, len(x.shape) - 1)) or None)(x),
    lambda x, c: layers.LayerNormalization()(x),
    lambda x, c: layers.Rescaling(c(0.5, 2.0), 0.1)(x),
    lambda x, c: ops.clip(x, -1.0, 1.0),
    lambda x, c: ops.where(x > 0, x, c(0.0, -1.0)),
    lambda x, c: ops.logaddexp(x, ops.sin(x)),
    lambda x, c: ops.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[1, 2]]),
    lambda x, c: ops.expand_dims(ops.mean(x, axis=-1), -1),
    lambda x, c: ops.concatenate([x, ops.square(x)], axis=-1),
    lambda x, c: ops.cast(ops.floor(x), "int32"),
    lambda x, c: ops.split(x, [1], axis=-1)[1],
)
