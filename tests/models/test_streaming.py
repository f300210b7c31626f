"""Decoders of layers that keep a state of fixed size, alone or beside caches that grow."""

import keras
import numpy as np
import pytest

import keras_seqattn
from keras_seqattn import models
from keras_seqattn.errors import InputError
from keras_seqattn.models.compiled import compiled
from tests.models import streaming
from tests.models.reference import run, sample_inputs

# Steps and the full pass add up in a different order: float32 rounding, of logits up to about 10.
TOLERANCE = 1e-4
LAYERS = {"streaming": streaming.STREAMING, "hybrid": streaming.HYBRID}


@pytest.fixture(scope="module", params=LAYERS)
def model(request):
    return streaming.decoder(LAYERS[request.param])


def _present(name):
    return name.replace("past_key_values", "present").replace("past_states", "present_states")


def _steps(model, inputs, static, ends, slots=16):
    """Logits of the tokens up to each of `ends` in turn, and the last outputs."""
    step = model.step_model(static=static)
    take_step = compiled(step)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    streams = "past_states.length" in step.input
    past = {
        name: np.zeros([slots * static if n is None else n for n in (len(ids), *x.shape[1:])])
        for name, x in step.input.items()
        if name.startswith("past_")
    }
    logits, start = [], 0
    for end in ends:
        known = np.zeros((len(ids), slots), "int32")
        known[:, :end] = mask[:, :end]
        feed = {"attention_mask": known if static else mask[:, :end]}
        if streams:
            feed["attention_mask"] = mask[:, start:end]
        elif static:
            feed["cache_position"] = np.array([start])
        feed |= {"input_ids": ids[:, start:end], **past}
        feed = {n: keras.ops.convert_to_tensor(feed[n], x.dtype) for n, x in step.input.items()}
        outputs = {n: keras.ops.convert_to_numpy(x) for n, x in take_step({}, feed).items()}
        logits.append(outputs["logits"])
        past = {name: outputs[_present(name)] for name in past}
        start = end
    return np.concatenate(logits, axis=1), outputs


@pytest.mark.parametrize("static", [False, True], ids=["growing", "static"])
def test_steps_equal_the_full_pass(model, static):
    inputs = sample_inputs(model, length=10, padding="left")
    full = run(model, inputs)["logits"]
    real = inputs["attention_mask"].astype(bool)
    stepped, outputs = _steps(model, inputs, static, (5, 9, 10))
    np.testing.assert_allclose(stepped[real], full[real], atol=TOLERANCE)
    for name in ("present_states.length", "present_states.0.tokens"):
        if name in outputs:
            np.testing.assert_array_equal(outputs[name].reshape(-1), real.sum(axis=1))


def test_inputs_of_the_steps(model):
    streams = len(model.step_model().input) == 2 + 1 + 2 * 2
    for static in (False, True):
        step = model.step_model(static=static)
        assert ("past_states.length" in step.input) == streams
        assert ("cache_position" in step.input) == (static and not streams)
        assert step.input["past_states.0.sum"].shape == (None, 22)
        assert step.input["past_states.0.tokens"].dtype == "int32"
        pasts = [name for name in step.input if name.startswith("past_")]
        assert set(step.output) == {"logits", *map(_present, pasts)}


def _greedy_by_full_passes(model, row, steps):
    ids = list(row)
    for _ in range(steps):
        # One length for all passes, padded behind, where a causal model does not look.
        padded = np.array([ids + [streaming.PAD] * (27 - len(ids))], "int32")
        logits = run(model, {"input_ids": padded, "attention_mask": np.ones_like(padded)})["logits"]
        ids.append(int(logits[0, len(ids) - 1].argmax()))
    return ids[len(row) :]


def test_greedy_equals_full_passes(model):
    # 11 = 8 + 2 + 1: such prompts are read in pieces.
    rows = [[7, 11, 60, 9, 23, 2, 14, 30, 31, 8, 19], [42], [8, 8, 30]]
    wanted = [_greedy_by_full_passes(model, row, 9) for row in rows]
    settings = {"max_new_tokens": 9, "eos_token_id": None}
    assert keras_seqattn.generate(model, rows, **settings) == wanted


def test_beams_of_a_batch_equal_those_of_single_rows(model):
    rows = [[7, 11, 60, 9, 23], [8, 8, 30]]
    settings = {"max_new_tokens": 7, "num_beams": 3, "length_penalty": 0.5}
    together = keras_seqattn.generate(model, rows, **settings)
    assert together == [keras_seqattn.generate(model, row, **settings) for row in rows]


def test_only_streams_have_no_end(model):
    decoder = models.KerasDecoder(model)
    if not decoder.is_streaming:
        with pytest.raises(InputError, match="context of 37 tokens"):
            keras_seqattn.generate(model, [7, 9], max_new_tokens=50)
        with pytest.raises(InputError, match="38 tokens exceed the 37 positions"):
            decoder.start(1, 38)
        return
    tokens = keras_seqattn.generate(model, [7, 9], max_new_tokens=50, eos_token_id=None)
    assert len(tokens) == 50


def test_a_mixer_s_settings_are_the_layer_s_own(model):
    blocks = [layer for layer in model.layers if layer.name.startswith("layers_")]
    last = blocks[-1].attention.decay
    assert (blocks[0].attention.decay, last) == (0.8, 0.5 if len(blocks) == 2 else 0.8)
