"""Windows with a cache that rolls: the numbers of the window, and no end."""

import numpy as np
import pytest
from transformers import MistralConfig, Qwen3Config

import keras_seqattn
from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from keras_seqattn.onnx import export
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    run,
    sample_inputs,
    save_reference,
)
from tests.models.test_llama import SIZES

WINDOW = 4


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(reference, directory of a rolling model, directory of one that grows)."""
    folder = tmp_path_factory.mktemp("mistral")
    config = MistralConfig(**SIZES, sliding_window=WINDOW)
    reference = make_reference("MistralForCausalLM", config)
    rolling = save_reference(reference, folder / "rolling", rolling_cache=True)
    longer = {"max_position_embeddings": 128}
    return reference, rolling, save_reference(reference, folder / "growing", **longer)


def test_parity_with_transformers(saved, tmp_path):
    reference, rolling, _ = saved
    model = check_parity(reference, rolling)
    check_round_trip(model, reference, tmp_path)
    states = {name: x.shape for name, x in model.step_model().input.items() if "past" in name}
    layers = SIZES["num_hidden_layers"]
    assert len(states) == 3 * layers + 1
    assert states["past_states.0.key"][2] == states["past_states.1.mask"][1] == WINDOW - 1


def test_generates_what_a_growing_cache_does(saved):
    rolling, growing = (models.load(path) for path in saved[1:])
    assert [v.path for v in rolling.weights] == [v.path for v in growing.weights]
    # The rolling one goes on after the end of its tables of positions.
    settings = {"max_new_tokens": 68, "min_new_tokens": 68}
    rows = [[7, 3, 20, 9, 23, 2], [8]]
    wanted = keras_seqattn.generate(growing, rows, **settings)
    assert keras_seqattn.generate(rolling, rows, **settings) == wanted


# The files are the same from every backend; the test of the mechanism compares each.
@pytest.mark.backend_free
def test_bundles_are_proven(saved, tmp_path):
    model = models.load(saved[1])
    for target in ("ort", "portable"):
        assert export(model, tmp_path / target, target=target).ok


def test_layers_without_a_window_still_grow(tmp_path):
    kinds = ["sliding_attention", "full_attention"]
    config = Qwen3Config(**SIZES, use_sliding_window=True, sliding_window=5, layer_types=kinds)
    reference = make_reference("Qwen3ForCausalLM", config)
    model = check_parity(reference, save_reference(reference, tmp_path, rolling_cache=True))
    names = set(model.step_model().input)
    assert {"past_states.0.mask", "past_key_values.1.key"} <= names


def test_a_window_that_is_off_by_one_does_not_pass(saved, tmp_path):
    reference, rolling, _ = saved
    changed = save_reference(reference, tmp_path, rolling_cache=True, sliding_window=WINDOW + 1)
    outputs = []
    for path in (rolling, changed):
        model = models.load(path)
        outputs.append(run(model, sample_inputs(model))["logits"])
    assert np.abs(outputs[0] - outputs[1]).max() > 10 * TOLERANCE


@pytest.mark.parametrize("window", [None, 1])
def test_what_cannot_roll(window):
    with pytest.raises(ConfigError, match="sliding_window"):
        models.build("mistral", **SIZES, sliding_window=window, rolling_cache=True)
