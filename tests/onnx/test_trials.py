"""What verification tries: each fault here shows only on inputs of one kind, and must be found."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_seqattn.errors import ExportError, InputError
from keras_seqattn.onnx import export, lowers, verify
from keras_seqattn.runtime import load
from tests.helpers import randomise


class _Different(keras.Operation):
    """An operation of which the file has another form than Keras."""

    def __init__(self, in_keras, in_file):
        super().__init__()
        self.in_keras, self.in_file = in_keras, in_file

    def call(self, *xs):
        return self.in_keras(*xs)

    def compute_output_spec(self, *xs):
        return keras.KerasTensor(xs[0].shape, xs[0].dtype)


@lowers(_Different)
def _lower(tracer, operation, *xs):
    return operation.in_file(*xs)


def whole(*shape, name="n", dtype="int32"):
    return keras.Input(shape, dtype=dtype, name=name)


def exported(tmp_path, function, *inputs, **settings):
    model = randomise(keras.Model(list(inputs), function(*inputs), name="model"), seed=3)
    return export(model, tmp_path / "bundle", **settings)


def floats(*shape, name="x"):
    return keras.Input(shape, name=name)


def _apart(n, m):
    return ops.cast(n - m, "float32")


# Functions of Keras and of the file, and the inputs that show that they differ.
FAULTS = {
    "negative": (lambda n: n + 1, lambda n: ops.abs(n) + 1, [whole(None)]),
    "large": (lambda n: n + 1, lambda n: ops.minimum(n, 99_999) + 1, [whole(None)]),
    "small_type": (lambda n: n + 0, lambda n: ops.minimum(n, 200), [whole(5, dtype="uint8")]),
    "flag_0": (lambda n: ops.cast(n, "float32"), lambda n: ops.cast(n, "float32") * 0 + 1,
               [keras.Input((5,), dtype="bool", name="n")]),
    "sizes": (lambda x, y: x + 0.0, lambda x, y: x + _apart(ops.shape(x)[1], ops.shape(y)[1]),
              [floats(None, 3), floats(None, 3, name="y")]),
    "height": (lambda x: x + 0.0, lambda x: x + _apart(*ops.shape(x)[1:3]),
               [floats(None, None, 3)]),
    "no_key": (lambda x, f: x + 0.0, lambda x, f: ops.where(ops.any(f, -1, keepdims=True), x, 0.0),
               [floats(5), keras.Input((5,), dtype="bool", name="f")]),
    "index": (lambda x: ops.argmax(x, -1), lambda x: ops.argmin(x, -1), [floats(None, 3)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(name, tmp_path):
    in_keras, in_file, inputs = FAULTS[name]
    assert exported(tmp_path, lambda *xs: _Different(in_keras, in_keras)(*xs), *inputs).ok
    with pytest.raises(ExportError, match="DIFFERS"):
        exported(tmp_path, lambda *xs: _Different(in_keras, in_file)(*xs), *inputs)


def test_each_table_limits_its_own_ids(tmp_path):
    ids, types = whole(None, name="ids"), whole(None, name="types")

    def model(ids, types):
        return layers.Embedding(13, 5)(ids) + layers.Embedding(3, 5)(
            ops.maximum(types, 0) * 0 + types
        )

    report = exported(tmp_path, model, ids, types)
    # JAX takes the last row of a table for an id beyond it, and the file stops.
    assert report.ok and (not report.left_out or keras.backend.backend() == "jax")
    loaded = load(tmp_path / "bundle")
    fine = {"ids": np.array([[12, 0]]), "types": np.array([[1, 2]])}
    assert np.isfinite(next(iter(loaded.run(fine).values()))).all()
    with pytest.raises(InputError, match="ids holds 13, but its values must be below 13"):
        loaded.run(fine | {"ids": np.array([[13, 0]])})


def test_offsets_and_parts(tmp_path):
    def model(ids, pairs):
        table = layers.Embedding(13, 5)
        return table(ids + 2) + table(pairs[..., 0]) + layers.Embedding(4, 5)(pairs[..., 1])

    exported(tmp_path, model, whole(None, name="ids"), whole(None, 2, name="pairs"), verify=False)
    inputs = {port.name: port for port in load(tmp_path / "bundle").session.ports.inputs}
    assert inputs["ids"].below == 11 and inputs["pairs"].below is None


def test_integers_on_which_the_model_does_not_run_are_left_out(tmp_path):
    """Positions in the sequence itself: only a try shows their range."""
    report = exported(tmp_path, lambda x, n: ops.take(x[0], n, axis=0), floats(None, 3), whole(2))
    assert report.ok


def test_ties(tmp_path):
    def model(x):
        even = ops.round(x * 0.3)
        return [ops.top_k(even, 3)[1], ops.argmax(even, axis=1), ops.argmin(even, axis=-1)]

    assert exported(tmp_path, model, floats(None, 7)).ok


def test_masks_hold_what_keras_accepts(tmp_path):
    x, mask, added = floats(None, 5), whole(None, name="attention_mask"), floats(None, name="mask")
    report = exported(
        tmp_path,
        lambda x, m, a: x * ops.cast(m, "float32")[..., None] + a[..., None],
        x,
        mask,
        added,
    )
    assert report.ok
    inputs = {
        "x": np.ones((1, 2, 5), "float32"),
        "attention_mask": np.array([[2, -7]]),
        "mask": np.array([[-1e9, 0.5]], "float32"),
    }
    out = next(iter(load(tmp_path / "bundle").run(inputs).values()))
    np.testing.assert_allclose(out, [[[-1e9] * 5, [-6.5] * 5]])


class _AtLeast(layers.Layer):
    """Refuses fewer steps than a number, and steps in pairs of inputs that differ."""

    def __init__(self, least, **kwargs):
        super().__init__(**kwargs)
        self.least = least

    def call(self, x, y):
        if not isinstance(x, keras.KerasTensor):
            if x.shape[1] < self.least or x.shape[1] != y.shape[1]:
                raise ValueError("too short")
        return x * 2

    def compute_output_spec(self, x, y):
        return keras.KerasTensor(x.shape, x.dtype)


def test_what_the_model_refuses_is_left_out_and_said_so(tmp_path):
    report = exported(
        tmp_path, lambda x, y: _AtLeast(3)(x, y), floats(None, 3), floats(None, 3, name="y")
    )
    said = report.summary()
    assert report.ok and "left out: length 1: Keras cannot run model on" in said
    assert "too short" in said and "dimensions of different sizes: " in said
    assert report.to_dict()["left_out"] == report.left_out


class _Noise(layers.Layer):
    """Adds random numbers at inference, too."""

    def __init__(self, deviation, **kwargs):
        super().__init__(**kwargs)
        self.deviation = deviation
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        shape = ops.shape(x)
        return x + keras.random.normal(shape, stddev=self.deviation, seed=self.seeds)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def test_random_numbers_are_compared_by_their_moments(tmp_path):
    noise = _Noise(0.5)
    model = keras.Model(x := floats(5, 3), noise(x), name="model")
    report = export(model, tmp_path / "noise.onnx")
    assert report.ok and all("moments of 24 runs" in case.name for case in report.cases)
    noise.deviation = 1.0
    assert not verify(tmp_path / "noise.onnx", model).ok
