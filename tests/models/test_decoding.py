import keras
import numpy as np
import pytest
import torch
from transformers import LlamaConfig, MistralConfig, Qwen3Config

from keras_seqattn import models
from keras_seqattn.errors import InputError
from tests.models.reference import make_reference, run, sample_inputs, save_reference
from tests.models.test_llama import ROPE, SIZES

# Steps and the full pass add up in a different order: float32 rounding, of logits up to about 10.
TOLERANCE = 1e-4
CASES = {
    "llama": ("LlamaForCausalLM", LlamaConfig, {}),
    "dynamic rope": ("LlamaForCausalLM", LlamaConfig, {"rope_parameters": ROPE["dynamic"]}),
    "mistral": ("MistralForCausalLM", MistralConfig, {"sliding_window": 4}),
    "qwen3": ("Qwen3ForCausalLM", Qwen3Config, {"num_key_value_heads": 1}),
}


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
    architecture, config, changes = CASES[request.param]
    reference = make_reference(architecture, config(**(SIZES | changes)))
    directory = save_reference(reference, tmp_path_factory.mktemp("model"))
    return reference, models.load(directory)


def _steps(model, inputs, static, slots=16):
    """Logits of a prefill of 5 tokens, then 3 more at once, then one by one."""
    step = model.step_model(static=static)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    batch, length = ids.shape
    size = slots if static else 0
    cache = {
        name: np.zeros((batch, tensor.shape[1], size, tensor.shape[3]), "float32")
        for name, tensor in step.input.items()
        if name.startswith("past_key_values.")
    }
    logits, start = [], 0
    for end in (5, *range(8, length + 1)):
        known = np.zeros((batch, slots), "int32")
        known[:, :end] = mask[:, :end]
        feed = {
            "input_ids": ids[:, start:end],
            "attention_mask": known if static else mask[:, :end],
        }
        if static:
            feed["cache_position"] = np.array([start], "int32")
        feed = {name: keras.ops.convert_to_tensor(value) for name, value in (feed | cache).items()}
        outputs = run(step, feed)
        logits.append(outputs["logits"])
        cache = {name: outputs[name.replace("past_key_values", "present")] for name in cache}
        start = end
    return np.concatenate(logits, axis=1)


@pytest.mark.parametrize("static", [False, True], ids=["growing", "static"])
def test_steps_equal_the_full_pass(saved, static):
    _, model = saved
    inputs = sample_inputs(model, length=10, padding="left")
    full = run(model, inputs)["logits"]
    real = inputs["attention_mask"].astype(bool)
    stepped = _steps(model, inputs, static)
    np.testing.assert_allclose(stepped[real], full[real], atol=TOLERANCE)


def _greedy(decoder, ids, mask, steps):
    batch, length = ids.shape
    decoder.start(batch, length + steps)
    fresh, tokens = ids, []
    for _ in range(steps):
        chosen = decoder(fresh, mask).argmax(-1)
        tokens.append(chosen)
        fresh, mask = chosen[:, None], np.pad(mask, ((0, 0), (0, 1)), constant_values=1)
    return np.stack(tokens, axis=1)


def test_greedy_tokens_equal_those_of_transformers(saved):
    reference, model = saved
    decoder = models.KerasDecoder(model)
    assert decoder.vocabulary_size == 41
    for length in (1, 21):
        inputs = sample_inputs(model, length=length, padding="left" if length > 6 else None)
        ids, mask = (inputs[name].astype("int64") for name in ("input_ids", "attention_mask"))
        ours = _greedy(decoder, ids, mask, 9)
        theirs = reference.generate(
            torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            do_sample=False,
            max_new_tokens=9,
            min_new_tokens=9,
            eos_token_id=None,
        )
        np.testing.assert_array_equal(ours, theirs[:, length:].numpy())


def test_reordered_rows_continue_from_their_source(saved):
    _, model = saved
    decoder = models.KerasDecoder(model)
    ids = np.array([[3, 5, 7, 11], [13, 17, 19, 23]])
    decoder.start(2, 9)
    decoder(ids, np.ones_like(ids))
    decoder.reorder(np.array([1, 1]))
    logits = decoder(np.array([[29], [31]]), np.ones((2, 5), "int64"))
    whole = np.array([[13, 17, 19, 23, 29], [13, 17, 19, 23, 31]], "int32")
    full = run(model, {"input_ids": whole, "attention_mask": np.ones_like(whole)})["logits"]
    np.testing.assert_allclose(logits, full[:, -1], atol=TOLERANCE)


def test_too_many_tokens_are_refused(saved):
    _, model = saved
    decoder = models.KerasDecoder(model)
    with pytest.raises(InputError, match="65 tokens exceed the 64 positions"):
        decoder.start(1, 65)
    decoder.start(1, 16)
    ids = np.ones((1, 17), "int64")
    with pytest.raises(InputError, match="17 tokens do not fit the 16 places"):
        decoder(ids, ids)
