"""What holds for every encoder-decoder, recurrent or with attention."""

import functools

import keras
import numpy as np
import pytest

from keras_seqattn import models
from keras_seqattn.models.compiled import compiled
from tests.helpers import to_numpy
from tests.models.reference import sample_inputs
from tests.onnx import tiny

# Sums in another order, or over more terms that are zero: float32 rounding over three layers.
TOLERANCE = 2e-5
FAMILIES = ("rnn_seq2seq", "bahdanau", "transformer", "marian", "bart", "t5")
# The others count positions with the padding, as the originals do.
IGNORE_LEFT_PADDING = ("rnn_seq2seq", "bahdanau", "t5")


built, whole = functools.cache(tiny.seq2seq), functools.cache(compiled)


@pytest.fixture(params=FAMILIES)
def model(request):
    return built(request.param)


@functools.cache
def parts(model, static):
    """The models of the encoder and of a step, each with a function that runs it."""
    both = model.encoder_model(static=static), model.step_model(static=static)
    return tuple((part, compiled(part)) for part in both)


def call(function, inputs):
    """The outputs of a compiled model, as NumPy arrays."""
    return to_numpy(function({}, {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}))


def logits(model, inputs):
    return call(whole(model), inputs)["logits"]


def assert_close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def changed(ids, where):
    """Other tokens at some places."""
    return np.where(where, ids % 96 + 1, ids).astype("int32")


def test_the_future_does_not_reach_the_past(model):
    inputs = sample_inputs(model, padding="right")
    before = logits(model, inputs)
    inputs["decoder_input_ids"] = changed(inputs["decoder_input_ids"], np.arange(7) >= 4)
    after = logits(model, inputs)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-2


@pytest.mark.parametrize("padding", ["left", "right"])
def test_tokens_behind_padding_change_nothing(model, padding):
    inputs = sample_inputs(model, padding=padding)
    before = logits(model, inputs)
    padded = inputs["attention_mask"] == 0
    behind = inputs | {"input_ids": changed(inputs["input_ids"], padded)}
    np.testing.assert_array_equal(before, logits(model, behind))
    real = inputs | {"input_ids": changed(inputs["input_ids"], ~padded)}
    assert np.abs(before - logits(model, real)).max() > 1e-2


@pytest.mark.parametrize(
    "name, padding",
    [(name, "right") for name in FAMILIES] + [(name, "left") for name in IGNORE_LEFT_PADDING],
)
def test_padding_changes_nothing(name, padding):
    model = built(name)
    inputs = sample_inputs(model)
    start = 4 if padding == "left" else 0
    real = slice(start, start + 7)
    inputs["attention_mask"][:] = (np.arange(11) >= start) & (np.arange(11) < start + 7)
    short = {name: inputs[name][:, real] for name in ("input_ids", "attention_mask")}
    assert_close(logits(model, inputs), logits(model, inputs | short))


def test_rows_do_not_see_each_other(model):
    inputs = sample_inputs(model, padding="right")
    before = logits(model, inputs)
    others = np.arange(3)[:, None] != 1
    for name in ("input_ids", "decoder_input_ids"):
        inputs[name] = changed(inputs[name], others)
    after = logits(model, inputs)
    np.testing.assert_array_equal(before[1], after[1])
    assert np.abs(before[0] - after[0]).max() > 1e-2


def test_a_source_without_tokens(model):
    inputs = sample_inputs(model, padding="right")
    before = logits(model, inputs)
    inputs["attention_mask"][1] = 0
    after = logits(model, inputs)
    assert np.isfinite(after).all()
    np.testing.assert_array_equal(before[[0, 2]], after[[0, 2]])


def stepped(model, inputs, static, slots=8):
    """The logits of a prefill of six tokens, and of one more."""
    (encoder, encode), (step, run_step) = parts(model, static)
    values = call(encode, {name: inputs[name] for name in encoder.input})
    values["encoder_attention_mask"] = inputs["attention_mask"]
    for port in step.ports.of_role("cache", "source_cache"):
        if port.follows not in values:
            _, heads, _, size = port.axes
            shape = (len(inputs["input_ids"]), heads, slots * static, size)
            values[port.follows] = np.zeros(shape, "float32")
    found = []
    for start, end in ((0, 6), (6, 7)):
        values["input_ids"] = inputs["decoder_input_ids"][:, start:end]
        values["cache_position"] = np.array([start], "int32")
        values |= call(run_step, {p.name: values[p.follows or p.name] for p in step.ports.inputs})
        found.append(values["logits"])
    return np.concatenate(found, axis=1)


@pytest.mark.parametrize("static", [False, True], ids=["growing", "static"])
def test_steps_equal_the_full_pass(model, static):
    inputs = sample_inputs(model, padding="right")
    assert_close(stepped(model, inputs, static), logits(model, inputs))


def test_a_step_reads_what_came_before(model):
    """The first token of the prefill is changed, and the logits of the step after it."""
    inputs = sample_inputs(model)
    before = stepped(model, inputs, False)
    inputs["decoder_input_ids"] = changed(inputs["decoder_input_ids"], np.arange(7) == 0)
    assert np.abs(before[:, 6] - stepped(model, inputs, False)[:, 6]).max() > 1e-2


def test_saving_and_loading(model, tmp_path):
    inputs = sample_inputs(model, padding="right")
    expected = logits(model, inputs)
    models.save(model, tmp_path / "directory")
    again = models.load(tmp_path / "directory")
    assert (again.family, again.task) == (model.family, "seq2seq_lm")
    np.testing.assert_array_equal(call(compiled(again), inputs)["logits"], expected)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(call(compiled(again), inputs)["logits"], expected)
