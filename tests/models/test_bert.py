import json
import warnings

import keras
import numpy as np
import pytest
import safetensors.numpy
from transformers import BertConfig

from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, ConfigError
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    parity_error,
    run,
    sample_inputs,
    save_reference,
)

ARCHITECTURES = {
    "embedding": "BertModel",
    "sequence_classification": "BertForSequenceClassification",
    "token_classification": "BertForTokenClassification",
    "question_answering": "BertForQuestionAnswering",
    "masked_lm": "BertForMaskedLM",
}


SIZES = {
    "vocab_size": 37,
    "hidden_size": 21,
    "num_attention_heads": 3,
    "intermediate_size": 29,
    "num_hidden_layers": 2,
    "max_position_embeddings": 23,
    "type_vocab_size": 5,
}
# The same by Keras's names.
SMALL = {
    "vocabulary_size": 37,
    "hidden_dim": 21,
    "num_heads": 3,
    "intermediate_dim": 29,
    "num_layers": 2,
    "max_sequence_length": 23,
    "type_vocab_size": 5,
}


def _config(**changes):
    return BertConfig(**(SIZES | changes))


def _saved(directory, architecture="BertModel", **changes):
    reference = make_reference(architecture, _config(**changes))
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize("task", ARCHITECTURES)
def test_every_head_agrees_with_transformers_and_saves_back(tmp_path, task):
    labels = {} if task == "question_answering" else {"num_labels": 4}
    reference, directory = _saved(tmp_path / "a", ARCHITECTURES[task], **labels)
    model = check_parity(reference, directory)
    assert (model.family, model.task) == ("bert", task)
    check_round_trip(model, reference, tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["architectures"] == [ARCHITECTURES[task]]


@pytest.mark.parametrize("activation", ["gelu_new", "relu", "silu", "gelu_pytorch_tanh"])
def test_activations(tmp_path, activation):
    check_parity(*_saved(tmp_path, "BertForMaskedLM", hidden_act=activation))


def test_masked_lm_with_its_own_output_matrix(tmp_path):
    reference, directory = _saved(tmp_path / "a", "BertForMaskedLM", tie_word_embeddings=False)
    model = check_parity(reference, directory)
    models.save(model, tmp_path / "b")
    check_parity(reference, tmp_path / "b")


def test_an_embedding_model_without_a_pooler(tmp_path):
    _, directory = _saved(tmp_path, "BertForMaskedLM")
    model = models.load(directory, "embedding")
    assert set(model.output) == {"last_hidden_state"}


@pytest.mark.parametrize(
    "change",
    [{"layer_norm_eps": 0.3}, {"hidden_act": "relu"}, {"num_attention_heads": 7}],
    ids=["epsilon", "activation", "heads and scale"],
)
def test_a_broken_model_does_not_pass(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    assert parity_error(reference, directory) > 10 * TOLERANCE


def test_older_names_of_normalisation_weights(tmp_path):
    reference, directory = _saved(tmp_path)
    tensors = safetensors.numpy.load_file(directory / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, ending in old.items():
        for name in [name for name in tensors if name.endswith(new)]:
            tensors[f"bert.{name.removesuffix(new)}{ending}"] = tensors.pop(name)
    tensors = {f"bert.{name.removeprefix('bert.')}": value for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, directory / "model.safetensors")
    check_parity(reference, directory)


def test_a_new_head_on_a_base_checkpoint_is_random_and_announced(tmp_path):
    reference, directory = _saved(tmp_path, num_labels=4)
    with pytest.warns(UserWarning, match="head for sequence_classification is new"):
        model = models.load(directory, "sequence_classification")
    kernel = keras.ops.convert_to_numpy(model.get_layer("classifier").kernel)
    assert kernel.shape == (21, 4) and kernel.std() > 0.005
    base = models.load(directory)
    inputs = sample_inputs(base)
    pooled = run(base, inputs)["pooler_output"]
    logits = run(model, inputs)["logits"]
    np.testing.assert_allclose(logits, pooled @ kernel, atol=1e-5)  # float32 rounding


def test_a_missing_head_of_the_checkpoints_own_task_is_an_error(tmp_path):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, architectures=["BertForTokenClassification"])
    with pytest.raises(CheckpointError, match="missing: classifier.bias, classifier.weight"):
        models.load(directory)


def test_the_head_of_another_task_is_left_out_quietly(tmp_path):
    reference, directory = _saved(tmp_path, "BertForTokenClassification")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = models.load(directory, "embedding")
    assert set(model.output) == {"last_hidden_state"}


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "mish"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"add_cross_attention": True},
        {"quantization_config": {"bits": 4}},
        {"num_hidden_layers": "two"},
        {"num_hidden_layers": 0},
        {"layer_norm_eps": -1.0},
        {"num_attention_heads": 4},
        {"id2label": 3},
    ],
    ids=lambda change: next(iter(change)),
)
def test_values_that_are_not_implemented_are_named(tmp_path, change):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, **change)
    with pytest.raises(ConfigError, match=next(iter(change))):
        models.load(directory)


def test_keys_that_change_nothing_are_ignored(tmp_path):
    reference, directory = _saved(tmp_path)
    save_reference(reference, directory, use_cache=False, xla_device=True)
    check_parity(reference, directory)


def test_unknown_model_types_and_tasks_are_named(tmp_path):
    reference, directory = _saved(tmp_path)
    with pytest.raises(ConfigError, match="no task 'causal_lm'; it has embedding"):
        models.load(directory, "causal_lm")
    with pytest.raises(ConfigError, match="no decoding step"):
        models.load(directory).step_model()
    save_reference(reference, directory, model_type="bort")
    with pytest.raises(ConfigError, match="model_type 'bort' is not implemented"):
        models.load(directory)


def test_keras_file_round_trip(tmp_path):
    model = models.build(
        "bert",
        "token_classification",
        **SMALL,
        num_labels=4,
    )
    model.assets["1_Pooling/config.json"] = b"{}"
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert (again.family, again.task, again.config) == (model.family, model.task, model.config)
    assert again.assets == {"1_Pooling/config.json": b"{}"}
    inputs = sample_inputs(model, padding="right")
    np.testing.assert_array_equal(run(again, inputs)["logits"], run(model, inputs)["logits"])


def test_building_and_training(tmp_path):
    model = models.build("bert", "sequence_classification", **(SMALL | {"num_layers": 1}))
    rng = np.random.default_rng(0)
    ids = rng.integers(1, 37, (64, 7)).astype("int32")
    ids[:, 0] = 1
    labels = (ids[:, 1] > 18).astype("int32")
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}
    model.compile("adam", {"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)})
    losses = model.fit(inputs, {"logits": labels}, epochs=3, batch_size=16, verbose=0)
    assert losses.history["loss"][-1] < losses.history["loss"][0]


def test_unknown_settings_of_build_are_named():
    with pytest.raises(ConfigError, match="unknown setting 'num_layer'. Did you mean 'num_layers'"):
        models.build("bert", num_layer=2)
    with pytest.raises(ConfigError, match="'hidden_size' is given twice"):
        models.build("bert", hidden_dim=12, hidden_size=12)
