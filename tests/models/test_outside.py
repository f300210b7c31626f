"""Families and a task that a program of somebody else adds, without touching the package."""

import dataclasses
import inspect
import json

import keras
import numpy as np
import pytest
import safetensors.numpy
import torch
from transformers import DistilBertConfig, ViTConfig

from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, ConfigError
from keras_seqattn.models import registry
from keras_seqattn.models.heads import HEADS
from keras_seqattn.weights.table import Table
from tests.helpers import randomise
from tests.models import outside
from tests.models.outside import encoder, head, parallel_decoder, speech, vision
from tests.models.outside.formulas import (
    PARALLEL,
    SPEECH,
    parallel_logits,
    speech_logits,
    store,
)
from tests.models.reference import TOLERANCE, make_reference, relative_error, run, run_reference

pytestmark = pytest.mark.backend_free

B, T, V = 3, 7, 97
FAMILIES = {
    module.FAMILY.model_type: module.FAMILY
    for module in (encoder, parallel_decoder, speech, vision)
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_heads", {})
    monkeypatch.delitem(HEADS, "sentence_embedding", raising=False)
    for family in FAMILIES.values():
        models.register(family)
    yield
    HEADS.pop("sentence_embedding", None)


def test_each_declaration_is_short():
    for module in (encoder, parallel_decoder, speech, vision, head):
        assert len(inspect.getsource(module).splitlines()) < 60, module.__name__
    assert outside.__doc__


def ids_and_mask(length=T, left=False):
    random = np.random.default_rng(length)
    ids = random.integers(0, V, (B, length)).astype("int32")
    mask = np.ones((B, length), "int32")
    for row in range(B):
        padded = min(2 * row, length - 1)
        mask[row, : padded if left else 0] = 0
        mask[row, length if left else length - padded :] = 0
    return ids, mask


def check_files(model, directory, tmp_path):
    """Saved again, in both formats, the weights have the same names, shapes and bits."""
    models.save(model, tmp_path / "again")
    expected = safetensors.numpy.load_file(directory / "model.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "again" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert written["model_type"] == model.family
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.family, loaded.task) == (model.family, model.task)
    for one, other in zip(model.weights, loaded.weights, strict=True):
        assert one.path == other.path
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(w) for w in (one, other)))


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("length", [1, T])
def test_the_decoder_computes_what_its_formula_says(length, left, tmp_path):
    weights = store(tmp_path, parallel_decoder.FAMILY, "causal_lm", PARALLEL)
    model = models.load(tmp_path)
    ids, mask = ids_and_mask(length, left)
    ours = run(model, {"input_ids": ids, "attention_mask": mask})
    theirs = {"logits": parallel_logits(weights, ids, mask)}
    assert relative_error(ours, theirs, mask) < TOLERANCE
    # Float32 rounding of some numbers; a wrong axis of the fused tensor gives a new result.
    weights["h.1.qkv.weight"] = weights["h.1.qkv.weight"].reshape(3, 4, 6, 24)
    weights["h.1.qkv.weight"] = weights["h.1.qkv.weight"].swapaxes(0, 1).reshape(72, 24)
    wrong = {"logits": parallel_logits(weights, ids, mask)}
    assert relative_error(ours, wrong, mask) > 100 * TOLERANCE


def test_the_decoder_is_saved_steps_and_generates(tmp_path):
    store(tmp_path, parallel_decoder.FAMILY, "causal_lm", PARALLEL)
    model = models.load(tmp_path)
    check_files(model, tmp_path, tmp_path)
    ids, mask = ids_and_mask()
    full = run(model, {"input_ids": ids, "attention_mask": mask | 1})["logits"]
    step = models.KerasDecoder(model)
    step.start(B, T)
    for end in (3, 4, T):
        start = {3: 0, 4: 3, T: 4}[end]
        last = step(ids[:, start:end], mask[:, :end] | 1)
        # Six products of float32 in another order.
        np.testing.assert_allclose(last, full[:, end - 1], rtol=0, atol=2e-4 * np.abs(full).max())


def test_the_decoder_with_another_head_and_other_sizes():
    model = models.build("outside_parallel", "sequence_classification", hidden_dim=20, num_layers=1)
    ids, mask = ids_and_mask()
    assert run(model, {"input_ids": ids, "attention_mask": mask})["logits"].shape == (B, 2)


def _reference(architecture, config, directory, model_type):
    """A model of transformers, written under the name of the family of the test."""
    reference = make_reference(architecture, config)
    reference.save_pretrained(directory)
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": model_type}))
    return reference


DISTILBERT = DistilBertConfig(
    vocab_size=V, dim=24, n_layers=2, n_heads=4, hidden_dim=29, max_position_embeddings=64
)
VIT = ViTConfig(
    image_size=12,
    patch_size=3,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=29,
    num_labels=5,
)


@pytest.mark.parametrize("architecture", ["DistilBertModel", "DistilBertForTokenClassification"])
def test_the_encoder_equals_transformers(architecture, tmp_path):
    reference = _reference(architecture, DISTILBERT, tmp_path, "outside_distilbert")
    model = models.load(tmp_path)
    for length in (1, T):
        ids, mask = ids_and_mask(length)
        inputs = {"input_ids": ids, "attention_mask": mask}
        theirs = run_reference(reference, inputs)
        assert relative_error(run(model, inputs), theirs, mask) < TOLERANCE
    check_files(model, tmp_path, tmp_path)


def test_the_image_encoder_equals_transformers(tmp_path):
    config = "ViTForImageClassification"
    reference = _reference(config, VIT, tmp_path, "outside_vit")
    model = models.load(tmp_path)
    assert model.task == "image_classification"
    pixels = np.random.default_rng(1).standard_normal((B, 3, 12, 12)).astype("float32")
    inputs = {"pixel_values": pixels}
    with torch.no_grad():
        theirs = {"logits": reference(torch.tensor(pixels)).logits.numpy()}
    assert relative_error(run(model, inputs), theirs, np.ones((B, 1))) < TOLERANCE
    check_files(model, tmp_path, tmp_path)


def _speech_inputs(length):
    ids, mask = ids_and_mask(length)
    features = np.random.default_rng(2).standard_normal((B, length, 11)).astype("float32")
    return {
        "input_features": features,
        "attention_mask": mask,
        "decoder_input_ids": ids_and_mask(5)[0],
    }


@pytest.mark.parametrize("length", [1, 13])
def test_the_encoder_decoder_of_sound_computes_what_its_formula_says(length, tmp_path):
    weights = store(tmp_path, speech.FAMILY, "seq2seq_lm", SPEECH)
    model = models.load(tmp_path)
    inputs = _speech_inputs(length)
    assert list(model.input) == list(inputs)
    theirs = {"logits": speech_logits(weights, *inputs.values())}
    everywhere = np.ones((B, 5))
    assert relative_error(run(model, inputs), theirs, everywhere) < TOLERANCE
    weights["model.encoder.project.bias"] = weights["model.encoder.project.bias"] + 1
    wrong = {"logits": speech_logits(weights, *inputs.values())}
    assert relative_error(run(model, inputs), wrong, everywhere) > 100 * TOLERANCE


def test_the_encoder_decoder_of_sound_is_saved_and_steps(tmp_path):
    store(tmp_path, speech.FAMILY, "seq2seq_lm", SPEECH)
    model = models.load(tmp_path)
    check_files(model, tmp_path, tmp_path)
    inputs = _speech_inputs(13)
    full = run(model, inputs)["logits"]
    targets = inputs.pop("decoder_input_ids")
    hidden = run(model.encoder_model(), inputs)["last_hidden_state"]
    step = model.step_model()
    past = {
        name: np.zeros((B, x.shape[1], 0, x.shape[3]), "float32")
        for name, x in step.input.items()
        if name.startswith("past")
    }
    fed = {"encoder_attention_mask": inputs["attention_mask"], "encoder_hidden_states": hidden}
    logits = run(step, {**past, **fed, "input_ids": targets})["logits"]
    np.testing.assert_allclose(logits, full, rtol=0, atol=1e-5 * np.abs(full).max())


def test_a_head_for_families_of_both_kinds(tmp_path):
    head.register({"bert": "BertForSentences", "outside_distilbert": "DistilBertForSentences"})
    ids, mask = ids_and_mask()
    for family, more in (("bert", {"token_type_ids": 0 * ids}), ("outside_distilbert", {})):
        sizes = {"num_layers": 1, "hidden_dim": 24, "num_heads": 4, "intermediate_dim": 29}
        sizes = sizes if family == "bert" else {}
        model = randomise(models.build(family, "sentence_embedding", vocab_size=V, **sizes))
        inputs = {"input_ids": ids, "attention_mask": mask, **more}
        ours = run(model, inputs)["sentence_embedding"]
        body = keras.Model(model.input, model.get_layer("masked_mean").input[0])
        hidden = keras.ops.convert_to_numpy(body(inputs))
        mean = (hidden * mask[..., None]).sum(1) / mask.sum(1)[:, None]
        kernel, bias = map(keras.ops.convert_to_numpy, model.get_layer("sentence").weights)
        np.testing.assert_allclose(ours, np.tanh(mean @ kernel + bias), rtol=0, atol=1e-5)
        models.save(model, tmp_path / family)
        again = models.load(tmp_path / family)
        assert again.task == "sentence_embedding"
        np.testing.assert_array_equal(run(again, inputs)["sentence_embedding"], ours)
    with pytest.raises(ConfigError, match="llama has no task 'sentence_embedding'"):
        models.build("llama", "sentence_embedding")


def test_a_task_without_a_head_is_refused_by_name():
    classes = parallel_decoder.CLASSES | {"summoning": "ParallelForSummoning"}
    models.register(
        dataclasses.replace(parallel_decoder.FAMILY, model_type="other", architectures=classes)
    )
    with pytest.raises(ConfigError, match="no head is declared for the task 'summoning'"):
        models.build("other", "summoning")


def test_heads_that_cannot_be_registered_are_refused():
    refused = (
        (("causal_lm", head.head, {}), "has a head already"),
        (("new", None, {}), "a function"),
        (("new", head.head, {"nobody": "X"}), "model_type 'nobody' is not implemented"),
        (("new", head.head, {"bert": "BertModel"}), "bert has a task new or a class BertModel"),
        (("new", head.head, ["bert"]), "needs a dict of architectures"),
        (("new", head.head, {"bert": 3}), "has 3 as a row or a class name"),
        (("new", head.head, {"bert": "BertForNew"}, ["a row"]), "has 'a row' as a row"),
        (("new", head.head, {"bert": "BertForNew"}, 5), "a list of rows"),
    )
    for arguments, message in refused:
        with pytest.raises(ConfigError, match=message):
            models.register_head(*arguments)
    assert "new" not in HEADS


def test_families_that_cannot_be_registered_are_refused():
    family = parallel_decoder.FAMILY
    changed = dataclasses.replace
    refused = (
        (3, "takes a Family"),
        (changed(family, model_type="bert"), "is a family of this package"),
        (changed(family), "registered already"),
        (changed(family, model_type=""), "needs a model_type"),
        (changed(family, model_type="x", keys={}), "nothing says what values n_embd may have"),
        (
            changed(family, model_type="x", defaults=family.defaults | {"n_head": "four"}),
            "the default of n_head must be a whole number",
        ),
        (changed(family, model_type="x", extent=("2 * nothing",)), "name nothing, which are not"),
        (changed(family, model_type="x", shapes={"h.{n}.w": ("n_embd",)}), "write {i} for the"),
        (changed(family, model_type="x", layer_counts={"layers": ("n_layer",)}), "write {i} for"),
    )
    for given, message in refused:
        with pytest.raises(ConfigError, match=message):
            models.register(given)
    assert models.register(family) is family
    other = changed(family)
    assert models.register(other, replace=True) is other


def test_what_adapt_says_of_layers_and_task_counts(tmp_path):
    """The weights say both, and config.json neither."""

    def adapt(config, names):
        count = sum(name.endswith(".ln.weight") for name in names)
        return {**config, "n_layer": count, "architectures": ["ParallelModel"]}

    store(tmp_path, parallel_decoder.FAMILY, "causal_lm", PARALLEL)
    config = json.loads((tmp_path / "config.json").read_text()) | {"n_layer": 5}
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="n_layer=5, but the weights have 2 layers"):
        models.load(tmp_path)
    models.register(dataclasses.replace(parallel_decoder.FAMILY, adapt=adapt), replace=True)
    model = models.load(tmp_path)
    assert model.task == "embedding" and model.config["n_layer"] == 2


def test_sizes_are_checked_in_families_whose_table_depends_on_the_settings(tmp_path):
    """Also by the names that a checkpoint without a head has, which lack the prefix."""

    def table(settings):
        found = parallel_decoder.table(settings)
        rows = [dataclasses.replace(r, checkpoint=f"model.{r.checkpoint}") for r in found.body]
        return dataclasses.replace(found, body=tuple(rows), prefix="model.")

    shapes = {"model.wte.weight": ("vocab_size", "n_embd")}
    family = dataclasses.replace(
        parallel_decoder.FAMILY, model_type="prefixed", table=table, shapes=shapes
    )
    models.register(family)
    models.save(models.build("prefixed", "embedding"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 101}))
    with pytest.raises(CheckpointError, match="vocab_size=101, which makes 'wte.weight'"):
        models.load(tmp_path)


def test_inputs_that_a_family_makes_itself_are_declared_by_their_names():
    def build(settings, task, initializer):
        x = keras.Input((None, 5), name="input_features")
        return {"input_features": x}, {"last_hidden_state": keras.layers.Dense(3, name="out")(x)}

    family = models.Family(
        "plain", {"embedding": "Plain"}, {}, {}, build, Table(()), layer_counts={}
    )
    model = models.build(models.register(family).model_type)
    (port,) = model.ports.inputs
    assert (port.name, port.role, port.axes[2]) == ("input_features", "features", 5)
