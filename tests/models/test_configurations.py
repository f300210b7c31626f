"""What config.json and the arguments of build may hold, for every key of every family."""

import json
import math

import pytest

from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, ConfigError, SeqAttnError
from keras_seqattn.models.config import read_settings
from keras_seqattn.models.family import check_declaration
from keras_seqattn.models.keys import KEYS
from keras_seqattn.models.registry import FAMILIES, get_family
from keras_seqattn.models.sequence_model import assemble
from keras_seqattn.models.sizes import evaluate
from keras_seqattn.weights.formats import open_checkpoint
from tests.fuzz.checkpoints import MODELS

pytestmark = pytest.mark.backend_free

# A model of each family.
SMALL = {family: (task, config) for family, task, config in reversed(MODELS.values())}
NUMBERS = ("x", "1", None, [], {}, [[1]], math.nan, math.inf, -2, 1e308, 10**30, 10**5000)
FLAGS = ("true", 0, 1, None, [], {}, 1.0)
TEXTS = (3, True, None, [], {}, ["gelu"], "x" * 10**5, "\ud800")
# Numbers that no size of anything made grows with, or not in these models.
HARMLESS = {
    *("full_attention_interval", "decoder_sparse_step", "max_window_layers", "num_experts"),
    *("clamp_len", "random_features_seed", "original_max_position_embeddings"),
    "block_multiple_of",
}

# Sizes of what is made beside the weights, and may be larger than they are.
BESIDE = {
    *("max_position_embeddings", "relative_attention_max_distance", "mem_len", "sliding_window"),
    *("max_global_tokens", "block_size", "num_random_blocks", "attention_window"),
}


def _config(family):
    config = {**get_family(family).defaults, **SMALL[family][1]}
    config |= {"rolling_cache": True} if "rolling_cache" in config else {}
    return {key: value for key, value in config.items() if value is not None}


@pytest.fixture(scope="module")
def bert():
    return models.build("bert", **SMALL["bert"][1])


def _refused(function, name):
    with pytest.raises(SeqAttnError) as caught:
        function()
    assert name in str(caught.value) and len(str(caught.value)) < 1000
    assert "\n" not in str(caught.value)


def _sizes(family):
    """The keys with whole numbers that say how much is made."""
    config = _config(family)
    sizes = {key for key, value in config.items() if type(value) is int}
    sizes |= {"attention_window"} & set(config)
    return {key for key in sizes if not key.endswith("_token_id")} - HARMLESS


def test_every_key_that_a_family_reads_is_declared():
    for family in map(get_family, FAMILIES):
        check_declaration(family)
        # A key means the same in all families.
        assert not set(family.keys) & set(KEYS)
    assert set(SMALL) == set(FAMILIES)


def _check_declared_shapes(family, path):
    """Each weight that the family declares is stored, with the shape that it declares."""
    checkpoint, declared = open_checkpoint(path), get_family(family)
    settings = read_settings(checkpoint.config, declared)
    prefix = getattr(declared.table, "prefix", "")
    for names, dimensions in declared.shapes.items():
        names = [names] if isinstance(names, str) else names
        full = {name.format(i=index) for name in names for index in (0, 1)}
        full |= {name.removeprefix(prefix) for name in full}
        stored = {checkpoint.shapes[name] for name in full & set(checkpoint.shapes)}
        assert stored == {tuple(evaluate(dimension, settings) for dimension in dimensions)}, names


@pytest.mark.parametrize("family", FAMILIES)
def test_values_of_the_wrong_kind_are_refused_by_name(family):
    config = _config(family)
    for key, value in config.items():
        if isinstance(value, str | int | float):
            wrong = TEXTS if isinstance(value, str) else NUMBERS
            wrong = FLAGS if isinstance(value, bool) else wrong
            for other in wrong:
                may_be_null = other is None and get_family(family).kind(key).accepts(None)
                if not may_be_null and not (other == [] and "eos_token" in key):
                    _refused(lambda: models.build(family, **(config | {key: other})), key)  # noqa: B023


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_no_memory_holds_are_refused_before_building(family):
    config = _config(family)
    for key in _sizes(family):
        for size in (10**9, 2**31 - 1):
            _refused(lambda: models.build(family, **(config | {key: size})), key)  # noqa: B023


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_that_the_weights_do_not_have_are_refused_before_building(family, tmp_path):
    models.save(models.build(family, SMALL[family][0], **_config(family)), tmp_path)
    _check_declared_shapes(family, tmp_path)
    # Of the keys that only we read save leaves this one out.
    rolling = {"rolling_cache": True} if "rolling_cache" in _config(family) else {}
    stored = json.loads((tmp_path / "config.json").read_text()) | rolling
    for key in _sizes(family) & set(stored):
        for size in (10**8 if key in BESIDE else 1000, 10**9, 2**31 - 1, 10**30):
            (tmp_path / "config.json").write_text(json.dumps(stored | {key: size}))
            _refused(lambda: models.load(tmp_path), key)


def test_a_billion_labels_are_refused(tmp_path):
    models.save(models.build("bert", "sequence_classification", **SMALL["bert"][1]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_labels": 10**9}))
    _refused(lambda: models.load(tmp_path), "num_labels=1000000000")


def test_the_refusal_names_the_key_the_value_and_what_the_weights_say(tmp_path):
    models.save(models.build("bert", **SMALL["bert"][1]), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"vocab_size": 10**6}))
    message = r"vocab_size=1000000, .*word_embeddings.weight' \(1000000, 48\), .* have \(97, 48\)"
    with pytest.raises(CheckpointError, match=message):
        models.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"id2label": []}, "id2label"),
        ({"id2label": {"0": 1}}, "id2label"),
        ({"id2label": {"1": "a"}}, "id2label"),
        ({"id2label": {"x": "a"}}, "id2label"),
        ({"label2id": 3}, "label2id"),
        ({"architectures": 3}, "architectures"),
        ({"architectures": [["BertModel"]]}, "architectures"),
        ({"architectures": [{}]}, "architectures"),
        ({"model_type": ["bert"]}, "model_type"),
        ({"model_type": None}, "model_type"),
        ({"is_decoder": 0}, "is_decoder"),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"hidden_act": ["gelu"]}, "hidden_act"),
        ({"layer_norm_eps": 0}, "layer_norm_eps"),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
        ({"hidden_size": True}, "hidden_size"),
    ],
)
def test_values_that_transformers_writes_in_another_form(tmp_path, bert, change, name):
    models.save(bert, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    _refused(lambda: models.load(tmp_path), name)


FREQUENCIES = ("low_freq_factor", "high_freq_factor")
HEADS = ("encoder_attention_heads", "decoder_attention_heads")


@pytest.mark.parametrize(
    ("rope", "name"),
    [
        ({"rope_type": ["linear"]}, "rope_type"),
        ({"rope_type": "linear", "factor": 0}, "factor"),
        ({"rope_type": "linear", "factor": math.nan}, "factor"),
        ({"rope_type": "linear", "factor": "2"}, "factor"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": -1}, "beta_fast"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": "no"}, "truncate"),
        ({"rope_type": "yarn", "factor": 2.0, "rope_theta": 1.0}, "rope_theta"),
        ({"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": "x"}, "original"),
        ({"rope_type": "longrope", "short_factor": [0.0] * 8, "long_factor": [1] * 8}, "short"),
        ({"rope_type": "longrope", "short_factor": ["x"] * 8, "long_factor": [1] * 8}, "short"),
        ({"rope_type": "llama3", "factor": 8} | dict.fromkeys(FREQUENCIES, 4), "must be below"),
        ({"twist" * 10**4: 1}, "with twist"),
    ],
)
def test_rotary_scalings_of_the_wrong_form(rope, name):
    config = SMALL["llama"][1] | {"rope_parameters": rope}
    _refused(lambda: models.build("llama", **config), name)


@pytest.mark.parametrize(
    ("family", "change", "name"),
    [
        ("qwen3_next", {"linear_num_key_heads": 3}, "linear_num_key_heads=3 must divide"),
        ("pegasus", {"d_model": 45} | dict.fromkeys(HEADS, 5), "must be even"),
        ("longformer", {"pad_token_id": 95, "max_position_embeddings": 90}, "pad_token_id"),
        ("llama", {"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, "channels"),
        ("t5", {"relative_attention_max_distance": 3}, "buckets"),
        ("bart", {"decoder_attention_heads": 5}, "decoder_attention_heads=5"),
    ],
)
def test_values_that_contradict_each_other(family, change, name):
    _refused(lambda: models.build(family, **(SMALL[family][1] | change)), name)


def test_tokens_beyond_the_vocabulary_are_refused_but_not_made_of_defaults(tmp_path):
    for key in ("pad_token_id", "eos_token_id", "decoder_start_token_id"):
        _refused(lambda: models.build("bart", **(SMALL["bart"][1] | {key: 97})), f"{key}=97")  # noqa: B023
    config = {name: value for name, value in SMALL["marian"][1].items() if "token" not in name}
    models.save(models.build("marian", **config), tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["eos_token_id"] == 0 and "pad_token_id" not in written
    models.load(tmp_path)


PATHS = [3, None, b"x", "", "a\0b", "\ud800", [], "x" * 10**5]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path)[:20])
def test_paths_that_are_none(path, bert):
    for call in (lambda: models.load(path), lambda: models.load(path, "embedding")):
        with pytest.raises(SeqAttnError) as caught:
            call()
        assert len(str(caught.value)) < 1000
    if path != "":
        with pytest.raises(SeqAttnError):
            models.save(bert, path)


@pytest.mark.parametrize("task", [3, b"embedding", [], {}, "nonsense", "", True, "x" * 10**5])
def test_tasks_that_are_none(task, tmp_path, bert):
    _refused(lambda: models.build("bert", task, **SMALL["bert"][1]), "task")
    models.save(bert, tmp_path)
    _refused(lambda: models.load(tmp_path, task), "task")


@pytest.mark.parametrize("family", [3, None, ["bert"], {}, "", "x" * 10**5, b"bert"])
def test_families_that_are_none(family):
    _refused(lambda: models.build(family), "model_type")


@pytest.mark.parametrize("value", [[], "x", None, 10**30, {}])
def test_keys_of_other_families_are_not_read(value):
    known = set(_config("bert")) | {"decoder_vocab_size", "head_dim", "rope_scaling", "n_layer"}
    config = _config("bert") | {key: value for key in known - set(_config("bert"))}
    settings = read_settings(config, get_family("bert"))
    assert settings == read_settings(_config("bert"), get_family("bert"))
    assemble("bert", None, config)


def test_only_our_models_are_saved(tmp_path):
    for model in (3, None, "bert", models.SequenceModel):
        with pytest.raises(ConfigError, match="save takes a model"):
            models.save(model, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_settings_are_read_in_the_same_way_again():
    """What build writes into a configuration is what load accepts."""
    for family in FAMILIES:
        config = _config(family)
        assert read_settings(config, get_family(family))
