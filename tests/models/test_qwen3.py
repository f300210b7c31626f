import numpy as np
import pytest
import safetensors.numpy
from transformers import Qwen3Config

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    parity_error,
    save_reference,
)
from tests.models.test_llama import SIZES

SLIDING, FULL = "sliding_attention", "full_attention"


def _saved(directory, **changes):
    reference = make_reference("Qwen3ForCausalLM", Qwen3Config(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": True, "attention_bias": True},
        {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
        {"use_sliding_window": True, "sliding_window": 4, "layer_types": [SLIDING, FULL]},
    ],
    ids=["plain", "tied with biases", "window from layer 1", "window in layer 0"],
)
def test_parity_and_round_trip(tmp_path, changes):
    reference, directory = _saved(tmp_path / "a", **changes)
    model = check_parity(reference, directory)
    assert model.family == "qwen3"
    check_round_trip(model, reference, tmp_path / "b")


def test_the_window_follows_max_window_layers_where_layer_types_is_absent(tmp_path):
    settings = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    reference, directory = _saved(tmp_path, **settings)
    save_reference(reference, directory, layer_types=None)
    check_parity(reference, directory)


def test_a_model_without_its_query_norm_does_not_pass(tmp_path):
    reference, directory = _saved(tmp_path)
    path = directory / "model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    for name in [name for name in tensors if name.endswith("q_norm.weight")]:
        tensors[name] = np.ones_like(tensors[name])
    safetensors.numpy.save_file(tensors, path)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_a_window_in_the_wrong_layer_does_not_pass(tmp_path):
    settings = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    reference, directory = _saved(tmp_path, **settings)
    save_reference(reference, directory, layer_types=[SLIDING, FULL])
    assert parity_error(reference, directory) > 10 * TOLERANCE


@pytest.mark.parametrize("kinds", [[FULL], [FULL, "chunked_attention"]])
def test_layer_types_that_are_not_implemented_are_named(tmp_path, kinds):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, layer_types=kinds)
    with pytest.raises(ConfigError, match="layer_types must name 2 layers"):
        models.load(directory)
