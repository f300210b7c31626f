"""Sizes that are known only at run time: a file computes what Keras does at every length, or is
refused with a message about the layer; it is never wrong."""

import itertools
import json
import operator

import keras
import numpy as np
import onnxruntime
import pytest
from keras import layers, ops

from keras_seqattn import runtime
from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import export
from keras_seqattn.onnx.bundle import write_onnx
from keras_seqattn.onnx.graph import build_graph
from keras_seqattn.onnx.sizes import computed, dimension
from tests.helpers import randomise
from tests.onnx.apply import Apply

WIDTH = 5
LENGTHS = (1, 2, 7, 8, 9, 16, 31, 129, 260)
if keras.backend.backend() == "jax":  # compiles each operation for each length
    LENGTHS = (1, 9, 129)


def n_of(x):
    return ops.shape(x)[1]


def ramp(length):
    """float (1, length): what shows the length, and the place of each number."""
    return ops.expand_dims(ops.cast(ops.arange(length), "float32"), 0)


def with_ramp(x, length):
    """float (b, length): the sum of each row beside a ramp of some length."""
    return ops.sum(x, axis=(1, 2))[:, None] + ramp(length)


def filled(x, length):
    return ops.concatenate([ops.sum(x, axis=2), ops.ones((ops.shape(x)[0], length))], axis=1)


# Each takes x (b, n, WIDTH); several lengths, which one value of n could not tell apart.
SIZES = {
    "mod": lambda n: n % 8,
    "mod and one": lambda n: n % 8 + 1,
    "minimum": lambda n: ops.minimum(n, 128),
    "maximum": lambda n: ops.maximum(n, 16),
    "clip": lambda n: ops.clip(ops.cast(n, "int32"), 4, 100),
    "whole blocks": lambda n: (n + 7) // 8 * 8,
    "half": lambda n: n // 2 + 1,
    "rest of a block": lambda n: (n + 7) // 8 * 8 - n,
    "blocks of most": lambda n: (n + 6) // 8 + 1,
    "many divisions": lambda n: n // 2 // 2 // 2 + 1,
    "square": lambda n: n * n,
    "square by name": ops.square,
    "tiny part": lambda n: n // (1 << 30) + 1,
    "nothing": lambda n: n - n + 3,
    "remainder of a product": lambda n: (3 * n) % 7,
    "gap": lambda n: ops.abs(n - 20),
    "larger of two": lambda n: ops.maximum(n // 2, n - 10),
}
PLACES = {
    "arange": with_ramp,
    "ones": filled,
    "slice": lambda x, length: x[:, :length],
    "slice from the end": lambda x, length: x[:, n_of(x) - ops.minimum(length, n_of(x)) :],
    "pad": lambda x, length: ops.pad(x, ((0, 0), (0, length), (0, 0))),
    "broadcast": lambda x, length: x[:, :1, :1] + ops.broadcast_to(0.0, (1, length, 1)),
    "its size again": lambda x, length: filled(x, ops.shape(ramp(length))[1]),
    "repeat": lambda x, length: ops.repeat(x, length, axis=1)[:, :300],
}


def check(function, inputs=1, lengths=LENGTHS, tmp_path=None):
    """Compare at every length that Keras takes; returns how many, or None if it was refused."""
    tensors = [keras.Input((None, WIDTH), name=f"x{i}") for i in range(inputs)]
    made = Apply(function, keras.KerasTensor((None, None, None), "float32"), name="made")
    model = keras.Model(tensors, made(*tensors))
    try:
        graph = build_graph(model)
    except ExportError as error:
        assert "made" in str(error) and "\n" not in str(error), error
        return None
    file = tmp_path / "model.onnx"
    write_onnx(graph, file, inline=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    random, compared = np.random.default_rng(3), 0
    for length in lengths:
        xs = [random.normal(size=(2, length, WIDTH)).astype("float32") for _ in tensors]
        try:
            expected = ops.convert_to_numpy(function(*map(ops.convert_to_tensor, xs)))
        except Exception:  # a length that the model does not take
            continue
        (actual,) = session.run(None, {f"x{i}": x for i, x in enumerate(xs)})
        assert actual.shape == expected.shape, length
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)
        compared += 1
    return compared


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_a_computed_length(size, place, tmp_path):
    def function(x):
        return PLACES[place](x, SIZES[size](n_of(x)))

    lengths = LENGTHS[:-1] if "square" in size else LENGTHS
    compared = check(function, lengths=lengths, tmp_path=tmp_path)
    assert compared and compared >= len(lengths) - 1


TABLE = np.random.default_rng(5).normal(size=(300, WIDTH)).astype("float32")
# What needs a length in other ways.
USES = {
    "batch and length": lambda x: ops.reshape(x, (-1, WIDTH)),
    "everything": lambda x: ops.reshape(x, (-1,)),
    "sevens": lambda x: ops.reshape(ops.tile(x, (1, 7, 1)), (-1, 7)),
    "and back": lambda x: ops.reshape(ops.reshape(x, (-1, WIDTH)), (ops.shape(x)[0], -1, WIDTH)),
    "of blocks": lambda x: ops.reshape(
        ops.pad(x, ((0, 0), (0, (n_of(x) + 7) // 8 * 8 - n_of(x)), (0, 0))),
        (ops.shape(x)[0], (n_of(x) + 7) // 8, 8, WIDTH),
    ),
    "the number of elements": lambda x: ramp(ops.shape(x)[0] * n_of(x) * WIDTH),
    "the length first": lambda x: ops.reshape(x, (n_of(x), -1)),
    "normalised over the length": lambda x: ops.rms_normalization(ops.transpose(x, (0, 2, 1))),
    "the first positions": lambda x: x + ops.slice(TABLE, (0, 0), (n_of(x), WIDTH)),
    "every third": lambda x: x[:, ::3] + ramp(ops.shape(x[:, ::3])[1])[:, :, None],
    "the last few": lambda x: x[:, -5:] + ramp(ops.shape(x[:, -5:])[1])[:, :, None],
    "one in the middle": lambda x: x[:, n_of(x) // 2 : n_of(x) // 2 + 1],
    "a part written over": lambda x: ops.slice_update(x, (0, n_of(x) // 2, 0), x[:, :1] * 2.0),
    "halves": lambda x: ops.split(ops.concatenate([x, x], axis=1), 2, axis=1)[1],
}


@pytest.mark.parametrize("name", USES)
def test_a_use_of_a_length(name, tmp_path):
    assert check(USES[name], tmp_path=tmp_path) == len(LENGTHS)


def test_two_sizes_of_one_value_are_told_apart(tmp_path):
    """At a prime (n + 7) // 8, (n + 6) // 8 and (n + 3) // 8 may be one number."""

    def function(x):
        n = n_of(x)
        lengths = [(n + d) // 8 for d in (7, 6, 5, 4, 3, 2, 1)]
        lengths += [n // 8 * 8, n - n % 8, n - 5, ops.maximum(n, 9), ops.minimum(n, 250)]
        return ops.concatenate([with_ramp(x, ops.maximum(k, 0)) for k in lengths], axis=1)

    assert check(function, tmp_path=tmp_path) == len(LENGTHS)


def test_sizes_of_two_inputs(tmp_path):
    def function(x, y):
        n, m = n_of(x), n_of(y)
        lengths = [n + m, n * m, ops.maximum(n, m) - ops.minimum(n, m), n % (m + 1), n // m]
        return ops.concatenate([with_ramp(x, k) for k in lengths], axis=1)

    assert check(function, inputs=2, tmp_path=tmp_path) == len(LENGTHS)


@pytest.mark.parametrize(
    "size",
    [
        lambda x: ops.cast(ops.sum(x) * 0 + 3, "int32"),
        lambda x: ops.cast(ops.ceil(ops.cast(n_of(x), "float32") / 2), "int32"),
        lambda x: ops.where(n_of(x) > 8, n_of(x), 8),
    ],
)
@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_followed_is_refused_or_right(size, place, tmp_path):
    check(lambda x: PLACES[place](x, size(x)), tmp_path=tmp_path)


def test_an_axis_of_many_elements_is_static(tmp_path):
    x = keras.Input((4096, 4097), batch_size=1, dtype="bool")
    flat = layers.Flatten()(x)
    model = keras.Model(x, ops.any(flat, axis=1, keepdims=True))
    graph = build_graph(model).graph
    shapes = [v.shape for node in graph for v in node.outputs if v.shape is not None]
    assert [1, 4096 * 4097] in [list(shape) for shape in shapes]


OPERATIONS = {
    operator.add: (1, 7, 128),
    operator.sub: (1, 5, 8),
    operator.mul: (2, 8),
    operator.floordiv: (2, 3, 8, 128, 512),
    operator.mod: (2, 7, 8, 64),
    min: (1, 16, 128, 512),
    max: (1, 16, 128, 512),
}


def _expressions(depth):
    """Every expression of one length with so many operations, as a function of any number."""
    if depth == 0:
        return {"n": lambda n: n}
    made = {}
    for (text, inner), (f, values) in itertools.product(
        _expressions(depth - 1).items(), OPERATIONS.items()
    ):
        for value in values:
            made[f"{f.__name__}({text}, {value})"] = lambda n, f=f, g=inner, v=value: computed(
                f, g(n), v
            )
    return made


@pytest.mark.backend_free
def test_equal_sizes_are_the_same_function():
    """Among all expressions of two operations, those that count as equal are equal everywhere."""
    n = dimension(0)
    found = {}
    for text, expression in _expressions(2).items():
        found.setdefault(expression(n), []).append((text, expression))
    assert sum(len(group) > 1 for group in found.values()) > 10
    for size, group in found.items():
        for length in (*range(1, 1100), 2047, 2048, 99_999):
            values = {expression(length) for _, expression in group}
            assert len(values) == 1, (length, [text for text, _ in group])
            assert not isinstance(size, int) or type(size) is not int or values == {size}


def test_inputs_that_must_have_one_length_are_reported(tmp_path):
    """Two of three inputs are added: they have one length, and the third keeps its own."""
    a, b, c = (keras.Input((None, WIDTH), name=name) for name in "abc")
    total = layers.Add(name="sum_of_two")([b, c])
    pooled = layers.GlobalAveragePooling1D(name="pooled")
    outputs = layers.Concatenate(name="beside")([pooled(a), pooled(total)])
    model = randomise(keras.Model([a, b, c], layers.Dense(3, name="head")(outputs)))
    report = export(model, tmp_path / "bundle")
    said = "b and c have one length, which sum_of_two (Add) needs"
    assert said in report.summary() and report.equal_lengths == said
    written = json.loads((tmp_path / "bundle" / "parity.json").read_text())
    assert written["equal_lengths"] == said
    inputs = {i.name: i.shape[1] for i in runtime.load(tmp_path / "bundle").session.get_inputs()}
    assert inputs["b"] == inputs["c"] != inputs["a"]
    x = np.ones((2, 3, WIDTH), np.float32)
    runtime.load(tmp_path / "bundle").run({"a": x, "b": x[:, :2], "c": x[:, :2]})


def test_inputs_of_any_lengths_are_not_reported(tmp_path):
    a, b = (keras.Input((None, WIDTH), name=name) for name in "ab")
    joined = layers.Concatenate(axis=1, name="one_after_the_other")([a, b])
    model = keras.Model([a, b], layers.Dense(3, name="head")(joined))
    report = export(model, tmp_path / "model.onnx")
    assert report.equal_lengths == "" and "length" not in report.summary()
    assert any("a_length 1, b_length 2" in case.name for case in report.cases)


def test_three_inputs_of_one_length(tmp_path):
    tensors = [keras.Input((None, WIDTH), name=name) for name in "abc"]
    model = keras.Model(tensors, layers.Concatenate(name="joined")(tensors))
    report = export(model, tmp_path / "model.onnx")
    assert report.equal_lengths == "a and b and c have one length, which joined (Concatenate) needs"
