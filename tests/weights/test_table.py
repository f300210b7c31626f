from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seqattn.errors import CheckpointError
from keras_seqattn.weights.checkpoint import Checkpoint
from keras_seqattn.weights.rows import WeightRow
from keras_seqattn.weights.table import Table, count_layers, load_weights, stored_tensors

TABLE = Table(
    body=(
        WeightRow("body.position_ids", None),
        WeightRow("body.layers.{i}.weight", "layers_{i}/kernel", "o i -> i o"),
        WeightRow("body.layers.{i}.bias", "layers_{i}/bias"),
        WeightRow("body.heads.weight", "heads/kernel", "(h d) i -> i h d"),
    ),
    head=(
        WeightRow("score.weight", "score/kernel", "o i -> i o"),
        WeightRow("other.weight", "other/kernel", "o i -> i o"),
    ),
    prefix="body.",
    renames=((".gamma", ".weight"),),
)


def _model(layers=2, head=True):
    x = inputs = keras.Input((5,), name="x")
    for i in range(layers):
        x = keras.layers.Dense(5, name=f"layers_{i}")(x)
    x = keras.layers.EinsumDense("bi,ihd->bhd", (2, 3), name="heads")(x)
    if head:
        x = keras.layers.Dense(7, use_bias=False, name="score")(x)
    return keras.Model(inputs, x)


def _tensors(layers=2, prefix="body.", head=True):
    rng = np.random.default_rng(0)
    shapes = {f"{prefix}layers.{i}.weight": (5, 5) for i in range(layers)}
    shapes |= {f"{prefix}layers.{i}.bias": (5,) for i in range(layers)}
    shapes |= {f"{prefix}heads.weight": (6, 5)} | ({"score.weight": (7, 3)} if head else {})
    return {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}


def _checkpoint(tensors):
    shapes = {name: value.shape for name, value in tensors.items()}
    return Checkpoint(Path("checkpoint"), {}, {}, shapes, tensors.__getitem__)


def _value(model, path):
    (variable,) = [v for v in model.variables if v.path == path]
    return keras.ops.convert_to_numpy(variable.value)


def test_axes_are_mapped_and_the_table_inverts():
    model, tensors = _model(layers=11), _tensors(layers=11)
    assert load_weights(model, _checkpoint(tensors), TABLE) == []
    np.testing.assert_array_equal(
        _value(model, "layers_10/kernel"), tensors["body.layers.10.weight"].T
    )
    heads = tensors["body.heads.weight"].reshape(2, 3, 5).transpose(2, 0, 1)
    np.testing.assert_array_equal(_value(model, "heads/kernel"), heads)
    shapes, read = stored_tensors(model, TABLE, prefixed=True)
    assert shapes == {name: value.shape for name, value in tensors.items()}
    for name, value in tensors.items():
        np.testing.assert_array_equal(read(name), value)


@pytest.mark.parametrize("prefix", ["body.", ""])
def test_the_prefix_of_the_body_may_be_absent(prefix):
    model, tensors = _model(head=False), _tensors(prefix=prefix, head=False)
    load_weights(model, _checkpoint(tensors), TABLE)
    shapes, _ = stored_tensors(model, TABLE, prefixed=bool(prefix))
    assert set(shapes) == set(tensors)


def test_old_endings_and_unused_tensors_are_accepted():
    tensors = _tensors()
    tensors["body.layers.0.gamma"] = tensors.pop("body.layers.0.weight")
    tensors["body.position_ids"] = np.zeros((1, 9), "float32")
    tensors["other.weight"] = np.zeros((3, 3), "float32")
    model = _model()
    load_weights(model, _checkpoint(tensors), TABLE)
    np.testing.assert_array_equal(
        _value(model, "layers_0/kernel"), tensors["body.layers.0.gamma"].T
    )


def test_every_problem_is_reported_at_once():
    model, tensors = _model(), _tensors()
    del tensors["body.layers.1.bias"]
    tensors["body.layers.2.bias"] = np.zeros(5, "float32")
    tensors["score.weight"] = np.zeros((3, 7), "float32")
    before = _value(model, "layers_0/kernel").copy()
    with pytest.raises(CheckpointError) as error:
        load_weights(model, _checkpoint(tensors), TABLE)
    message = str(error.value)
    assert "missing: body.layers.1.bias" in message
    assert "unexpected: body.layers.2.bias" in message
    assert "mis-shaped: score.weight is (3, 7), expected (7, 3)" in message
    np.testing.assert_array_equal(_value(model, "layers_0/kernel"), before)


def test_a_missing_head_is_an_error_unless_it_is_declared_new():
    model, tensors = _model(), _tensors(head=False)
    with pytest.raises(CheckpointError, match="missing: score.weight"):
        load_weights(model, _checkpoint(tensors), TABLE)
    before = _value(model, "score/kernel").copy()
    assert load_weights(model, _checkpoint(tensors), TABLE, new_head=True) == ["score/kernel"]
    np.testing.assert_array_equal(_value(model, "score/kernel"), before)


def test_declaring_a_new_head_does_not_excuse_a_missing_body():
    tensors = _tensors(head=False)
    del tensors["body.heads.weight"]
    with pytest.raises(CheckpointError, match="missing: body.heads.weight"):
        load_weights(_model(), _checkpoint(tensors), TABLE, new_head=True)


def test_a_tensor_stored_under_two_names_is_refused():
    tensors = _tensors()
    tensors["body.layers.0.gamma"] = tensors["body.layers.0.weight"]
    with pytest.raises(CheckpointError, match="body.layers.0.gamma .also stored as"):
        load_weights(_model(), _checkpoint(tensors), TABLE)


def test_a_variable_without_a_row_is_named():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="stray")(inputs))
    with pytest.raises(CheckpointError, match="stray/kernel"):
        stored_tensors(model, TABLE, prefixed=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(value):
    tensors = _tensors()
    name = next(iter(tensors))
    tensors[name] = tensors[name].copy()
    tensors[name].flat[1] = value
    with pytest.raises(CheckpointError, match=f"1 of the .* values of tensor '{name}' are not"):
        load_weights(_model(), _checkpoint(tensors), TABLE)


def test_large_weights_whose_sum_overflows_are_numbers():
    tensors = {name: np.full_like(value, 3e38) for name, value in _tensors().items()}
    load_weights(_model(), _checkpoint(tensors), TABLE)


@pytest.mark.parametrize("index", ["9" * 30, "9" * 5000, "-1", "01", "1e3", "\u0663"])
def test_layers_of_impossible_numbers_are_unexpected(index):
    tensors = _tensors()
    tensors[f"body.layers.{index}.gamma"] = np.ones(3, np.float32)
    checkpoint = _checkpoint(tensors)
    assert count_layers(checkpoint, TABLE) == 2
    with pytest.raises(CheckpointError, match="unexpected: body.layers") as caught:
        load_weights(_model(), checkpoint, TABLE)
    assert len(str(caught.value)) < 500
