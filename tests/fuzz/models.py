"""Random Keras models of a few layers, exported, verified, and compared once more by other code."""

import keras
import numpy as np
import onnxruntime
from keras import layers, ops

from keras_seqattn import layers as ours
from keras_seqattn.errors import ExportError
from keras_seqattn.layers import mechanisms
from keras_seqattn.onnx import export
from keras_seqattn.onnx.inputs import InputGenerator
from keras_seqattn.runtime.graph_ports import numpy_dtype, port_of_value
from tests.fuzz.harness import attempt
from tests.helpers import randomise

# float32 through some layers whose weights make much of small differences.
TOLERANCE = 2e-3
# Or so many times what the last bits of the weights move Keras: one case in thousands has a sum
# that cancels, in which both sides are a thousandth from what float64 gives.
ROUNDINGS = 4
# What a report of `DIFFERS` must not be about.
EQUAL = 1e-5
LENGTHS = (1, 2, 3, 5, 8, 19, 40, 130)


def case(random, folder):
    """Build, export, run: what was verified must agree at shapes of our own."""
    try:
        model = _Builder(random).model()
        randomise(model, seed=int(random.integers(1 << 30)))
    except Exception:  # whatever Keras says of a model that cannot be
        return "not built"
    target = str(random.choice(["ort", "portable"]))
    path = folder / "model.onnx"
    try:
        attempt(export, model, path, target=target)
    except Exception as refused:
        if "DIFFERS" in str(refused):
            _check_it_differs(model, path, target)
        elif isinstance(refused.__cause__, ExportError):
            assert not list(folder.iterdir()), "a refused export left something"
        raise
    shapes = [(int(random.integers(1, 5)), int(random.choice(LENGTHS))) for _ in range(4)]
    batches = [[_array(x, *s, random) for x in model.inputs] for s in shapes]
    errors = _errors(model, path, batches)
    worst = max(errors, default=0.0)
    if worst > TOLERANCE and worst <= ROUNDINGS * _last_bits(model, path, batches):
        return "verified, sensitive"
    assert worst <= TOLERANCE, f"verified, and {worst} apart: {_described(model)}"
    return "verified" if errors else "verified, not compared"


def _check_it_differs(model, path, target):
    """On inputs as the verification has them: 3 steps do not show what a sum over 130 loses."""
    export(model, path, target=target, verify=False)
    generator = InputGenerator(model)
    batches = [generator.inputs(*shape) for shape in generator.cases()]
    errors = _errors(model, path, [[b[x.name] for x in model.inputs] for b in batches])
    worst = max(errors, default=1.0)
    assert not worst <= EQUAL, f"refused as different, and {worst} apart: {_described(model)}"


def _errors(model, path, batches):
    """The errors on those lists of arrays that Keras takes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    errors = []
    masks_zero = any(getattr(x, "mask_zero", False) for x in model._flatten_layers())
    for arrays in batches:
        try:
            expected = keras.tree.flatten(model(arrays if len(arrays) > 1 else arrays[0]))
        except Exception:  # a length that the model does not take
            continue
        feeds = {
            i.name: a.astype(numpy_dtype(port_of_value(i)))
            for i, a in zip(session.get_inputs(), arrays, strict=True)
        }
        ids = [a for a in arrays if masks_zero and a.dtype.kind in "iu"]
        for value, actual in zip(expected, session.run(None, feeds), strict=True):
            errors.append(_error(keras.ops.convert_to_numpy(value), actual, ids))
    return errors


def _last_bits(model, path, batches):
    """How far the last bits of the weights move Keras from the file, beyond where it is."""
    before, random = max(_errors(model, path, batches)), np.random.default_rng(0)
    for variable in model.weights:
        value = keras.ops.convert_to_numpy(variable.value)
        if value.dtype.kind == "f":
            ends = np.where(random.random(value.shape) < 0.5, np.inf, -np.inf)
            variable.assign(np.nextafter(value, ends.astype(value.dtype)))
    return abs(max(_errors(model, path, batches)) - before)


def _error(expected, actual, ids):
    assert expected.shape == actual.shape, f"{expected.shape} in Keras, {actual.shape} in the file"
    expected, actual = expected.astype("float64"), actual.astype("float64")
    # At masked positions Keras's backends do not agree with each other.
    real = [x != 0 for x in ids if x.shape == expected.shape[:2]]
    if real:
        expected, actual = (x[np.logical_and.reduce(real)] for x in (expected, actual))
    known = np.isfinite(expected)
    if not np.array_equal(expected[~known], actual[~known], equal_nan=True):
        return np.inf
    difference = np.abs(expected - actual)[known]
    return difference.max(initial=0) / max(1.0, np.abs(expected[known]).max(initial=0))


def _array(tensor, batch, length, random):
    shape = [
        n if n is not None else length if axis else batch for axis, n in enumerate(tensor.shape)
    ]
    if tensor.dtype == "bool":
        mask = random.random(shape) < 0.6
        mask[..., 0] = True
        return mask
    if "int" in tensor.dtype:
        ids = random.integers(0, _Builder.VOCABULARY, shape)
        # The first is never 0, lest a causal row see nothing where 0 is padding.
        return np.maximum(ids, np.arange(shape[1]) == 0).astype(tensor.dtype)
    return random.standard_normal(shape).astype(tensor.dtype)


def _described(model):
    return ", ".join(f"{type(x).__name__} {x.name}" for x in model.layers)


class _Builder:
    """Grows a graph of sequences (b, t, m), vectors (b, m) and whatever operations make of them."""

    VOCABULARY = 13

    def __init__(self, random):
        self.random = random
        self.masks = []

    def model(self):
        inputs = self._inputs()
        tensors = [self._start(x) for x in inputs if x.dtype != "bool"]
        for _ in range(self.random.integers(1, 6)):
            x = self._pick(tensors)
            tensors.append(self._step(x, tensors))
        count = min(len(tensors), int(self.random.integers(1, 4)))
        outputs = [tensors[-1], *(self._pick([*tensors, *inputs]) for _ in range(count - 1))]
        if self.random.random() < 0.1:
            inner = keras.Model(inputs, outputs)
            outputs = inner([keras.ops.copy(x) for x in inputs])
        return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)

    def _inputs(self):
        inputs = [self._input(0)]
        while self.random.random() < 0.35 and len(inputs) < 3:
            inputs.append(self._input(len(inputs)))
        if self.random.random() < 0.3:
            mask = keras.Input((inputs[0].shape[1],), dtype="bool", name="flags")
            self.masks.append(mask)
            inputs.append(mask)
        return inputs

    def _input(self, index):
        length = None if self.random.random() < 0.7 else int(self.random.choice([1, 5, 8]))
        if self.random.random() < 0.4:
            return keras.Input((length,), dtype="int32", name=f"ids_{index}")
        width = int(self.random.choice([1, 6, 8, 12]))
        batch = 1 if index and self.random.random() < 0.2 else None
        return keras.Input(batch_shape=(batch, length, width), name=f"x_{index}")

    def _start(self, x):
        if "int" not in x.dtype:
            return x
        width, zero = self._choice(6, 8, 12), self.random.random() < 0.3
        if self.random.random() < 0.2:
            return ours.TokenEmbedding(self.VOCABULARY, width)(x)
        return layers.Embedding(self.VOCABULARY, width, mask_zero=zero)(x)

    def _choice(self, *options):
        return options[self.random.integers(len(options))]

    def _pick(self, tensors):
        # The newest most often: deep rather than wide.
        place = len(tensors) - 1 - min(len(tensors) - 1, self.random.geometric(0.6) - 1)
        return tensors[int(place)]

    def _step(self, x, tensors):
        if "int" in x.dtype or x.dtype == "bool":
            return self._choice(
                lambda: ops.cast(x, "float32"),
                lambda: ops.clip(x, 0, 1),
                lambda: ops.cast(ops.any(ops.cast(x, "bool"), axis=-1), "float32"),
                lambda: ops.where(x > 0, x, 0),
            )()
        kinds = [self._operation, self._reduction, self._mixed]
        if len(x.shape) == 3:
            kinds += [self._attention, self._attention, self._recurrent, self._sequence]
            kinds += [self._stock_attention, self._mixer, self._dense]
            kinds += [self._again]
        return self._choice(*kinds, self._dense)(x, tensors)

    def _again(self, x, tensors):
        layer = self._choice(
            layers.Dense(x.shape[-1], "gelu"),
            ours.MultiHeadAttention(2, 4),
            ours.FeedForward(7),
            layers.LSTM(x.shape[-1], return_sequences=True),
            ours.EncoderBlock(2, 4, 9, normalize_first=bool(self.random.integers(2))),
        )
        return layer(layer(x))

    def _dense(self, x, tensors):
        activation = self._choice(None, "relu", "gelu", "silu", "tanh", "softmax", "elu", "mish")
        return self._choice(
            layers.Dense(self._choice(1, 6, 8), activation=activation),
            layers.LayerNormalization(),
            layers.RMSNormalization(),
            ours.FeedForward(11, gated=bool(self.random.integers(2))),
            layers.Dropout(0.1),
            layers.Activation("sigmoid"),
            layers.UnitNormalization(),
            layers.Rescaling(0.5, offset=1.0),
            layers.EinsumDense("...a,ab->...b", 6 if len(x.shape) == 2 else (None, 6)[1:]),
        )(x)

    def _sequence(self, x, tensors):
        return self._choice(
            lambda: layers.GlobalAveragePooling1D()(x),
            lambda: layers.GlobalMaxPooling1D()(x),
            lambda: layers.TimeDistributed(layers.Dense(5))(x),
            lambda: layers.ZeroPadding1D(2)(x),
            lambda: layers.Cropping1D(1)(x),
            lambda: layers.UpSampling1D(2)(x),
            lambda: layers.Conv1D(4, 3)(x),
            lambda: layers.AveragePooling1D(2)(x),
            lambda: layers.Permute((2, 1))(x),
            lambda: layers.Flatten()(x),
            lambda: layers.Masking()(x),
            lambda: layers.RepeatVector(3)(x[:, 0]),
            lambda: layers.Reshape((-1, self._choice(1, 2, 3, 4)))(x),
            lambda: x[:, :: self._choice(1, 2, 3)],
            lambda: x[:, self._choice(-1, 0, 1, 3) :],
            lambda: x[:, self._choice(0, 2, -1)],
            lambda: ops.split(x, [self._choice(0, 1, -1)], axis=1)[self._choice(0, 1)],
            lambda: ops.split(x, self._choice(1, 2, 3), axis=self._choice(1, 2, -1))[0],
            lambda: ops.flip(x, axis=self._choice(1, -1)),
            lambda: ours.ReverseTime()(x),
            lambda: ours.CausalConv1D(3)(x)[self._choice(0, 1)],
            lambda: ours.Maxout(5)(x),
            lambda: ours.SinusoidalPositions(x.shape[-1])(x),
            lambda: ours.PositionEmbedding(40, x.shape[-1])(x),
        )()

    def _operation(self, x, tensors):
        axis = self._choice(-1, 0, 1)
        return self._choice(
            lambda: ops.exp(ops.minimum(x, 2.0)),
            lambda: ops.log(ops.abs(x) + self._choice(0.0, 1.0)),
            lambda: ops.sqrt(x),
            lambda: ops.clip(x, -0.5, self._choice(0.5, 1)),
            lambda: ops.clip(x > 0, 0, 1),
            lambda: ops.cast(x > 0, self._choice("int32", "bool", "float32")),
            lambda: ops.cumsum(x, axis=axis),
            lambda: ops.square(x),
            lambda: ops.round(x),
            lambda: ops.sign(x),
            lambda: x // 0.7,
            lambda: x % 0.7,
            lambda: 1 / (1 + x * x),
            lambda: ops.expand_dims(x, axis),
            lambda: ops.swapaxes(x, 1, -1),
            lambda: ops.transpose(x),
            lambda: ops.concatenate([x, x], axis=axis),
            lambda: ops.stack([x, x], axis=axis),
            lambda: ops.softmax(x, axis=axis),
            lambda: ops.argmax(x, axis=axis),
            lambda: ops.one_hot(ops.cast(x, "int32"), 3),
            lambda: ops.pad(x, [[0, 0]] * (len(x.shape) - 1) + [[1, 2]]),
            lambda: ops.repeat(x, 2, axis=axis),
            lambda: ops.tile(x, [1] * (len(x.shape) - 1) + [2]),
            lambda: ops.where(x > 0, x, self._choice(0, 0.5, -1)),
            lambda: ops.isnan(x),
            lambda: ops.ones_like(x),
            lambda: ops.tril(x),
            lambda: ops.top_k(x, 1)[0],
            lambda: ops.reshape(x, (-1, x.shape[-1])),
            lambda: ops.einsum("...a,...a->...", x, x),
            lambda: ops.normalize(x, axis=axis),
            lambda: ops.arange(ops.shape(x)[1]) + 0 * ops.cast(ops.sum(x), "int32"),
            lambda: x,
        )()

    def _reduction(self, x, tensors):
        name = self._choice("sum", "mean", "max", "min", "prod", "var", "std", "logsumexp", "any")
        axis = self._choice(None, -1, 0, 1, (1, -1))
        if name == "prod":
            # A product that overflows does so, or not, by the order of its factors.
            x = ops.clip(x, -1.0, 1.0)
        return getattr(ops, name)(x, axis=axis, keepdims=bool(self.random.integers(2)))

    def _mixed(self, x, tensors):
        y = self._pick(tensors)
        return self._choice(
            lambda: layers.Add()([x, y]),
            lambda: layers.Multiply()([x, y]),
            lambda: layers.Concatenate(axis=self._choice(1, -1))([x, y]),
            lambda: layers.Dot(axes=(2, 2))([x, y]),
            lambda: ops.maximum(x, y),
            lambda: ops.matmul(x, ops.swapaxes(y, -1, -2)),
            lambda: x - y,
        )()

    def _stock_attention(self, x, tensors):
        sequences = [y for y in tensors if len(y.shape) == 3]
        y = self._choice(x, x, self._pick(sequences))
        call = {"use_causal_mask": bool(self.random.random() < 0.3)}
        if self.masks and y is x and self.random.random() < 0.5:
            call["attention_mask"] = ops.expand_dims(self.masks[0], 1)
        return self._choice(
            lambda: layers.MultiHeadAttention(2, 4)(x, y, **call),
            lambda: layers.GroupQueryAttention(4, 4, 2)(x, y, **call),
            lambda: layers.Attention()([x, y]),
            lambda: layers.AdditiveAttention()([x, y]),
        )()

    def _attention(self, x, tensors):
        sequences = [y for y in tensors if len(y.shape) == 3]
        y = self._choice(None, None, self._pick(sequences))
        causal = bool(self.random.integers(2))
        make = self._choice(
            *[lambda: None] * 4,
            lambda: mechanisms.Local(self._choice(0, 3), 0 if causal else 2, self._choice(1, 2)),
            lambda: mechanisms.BlockSparse(4, 1),
            lambda: mechanisms.Strided(3),
            lambda: mechanisms.Fixed(4, 1),
            lambda: mechanisms.Hierarchical(4, 3),
            lambda: mechanisms.Linearized(self._choice("elu", "relu")),
            lambda: mechanisms.Linformer(4, 160),
            lambda: mechanisms.Performer(8),
            lambda: mechanisms.SinkLocal(2, 3),
        )
        mechanism, settings = make(), {}
        if mechanism is None:
            settings["window"] = self._choice(None, None, (3, 0), (2, None), (None, 1))
            settings["softcap"] = self._choice(None, None, 5.0)
            settings["sinks"] = bool(self.random.random() < 0.2)
        settings["positions"] = self._choice(None, None, ours.RotaryPositions(4))
        layer = ours.MultiHeadAttention(
            4, 4, self._choice(1, 2, 4), causal=causal, attention=mechanism, **settings
        )
        call = {}
        if self.masks and y is None and self.random.random() < 0.5:
            call["attention_mask"] = self.masks[0]
        return layer(x, y, **call)

    def _mixer(self, x, tensors):
        chunk = self._choice(4, 32)
        make = self._choice(
            lambda: ours.GatedLinearAttention(2, 4, chunk_size=chunk),
            lambda: ours.GatedDelta(2, 4, chunk_size=chunk),
            lambda: ours.StateSpace(2, 4, 5, chunk_size=chunk),
            lambda: ours.ShortConvolution(3),
            lambda: ours.TransformerXLAttention(2, 4, 6),
            lambda: ours.LatentAttention(2, 4, 2, 5),
        )
        if self.random.random() < 0.4:
            return ours.DecoderBlock(2, 4, 11, mixer=make())(x)
        return make()(x)

    def _recurrent(self, x, tensors):
        cell = self._choice(layers.LSTM, layers.GRU, layers.SimpleRNN)
        layer = cell(
            self._choice(1, 5),
            return_sequences=bool(self.random.random() < 0.7),
            go_backwards=bool(self.random.random() < 0.2),
        )
        if self.random.random() < 0.3:
            return layers.Bidirectional(layer, merge_mode=self._choice("concat", "sum", "ave"))(x)
        return layer(x)
