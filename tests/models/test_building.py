import pytest

from keras_seqattn import models
from keras_seqattn.errors import ConfigError
from keras_seqattn.models.registry import FAMILIES

SMALL = {
    "vocabulary_size": 37,
    "hidden_dim": 24,
    "num_heads": 4,
    "intermediate_dim": 29,
    "num_layers": 2,
    "max_sequence_length": 23,
}


DECODERS = ("llama", "mistral", "qwen3")
RECURRENT = {"num_heads", "intermediate_dim", "max_sequence_length"}
LACKING = {
    "t5": {"max_sequence_length"},
    "rnn_seq2seq": RECURRENT,
    "bahdanau": RECURRENT | {"num_layers"},
    **dict.fromkeys(("transfo_xl", "xlnet"), {"max_sequence_length"}),
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 6}
MORE = {
    **dict.fromkeys(DECODERS, GROUPED),
    "lfm2": {"num_key_value_heads": 2},
    "qwen3_next": {"num_key_value_heads": 2, "head_dim": 8, "mlp_only_layers": [0, 1]},
}
ENCODERS = ("bert", "big_bird", "linformer", "longformer", "performer")
# A variable that shows how the layers of a family are named.
VARIABLES = {
    **dict.fromkeys((*ENCODERS, *DECODERS, "lfm2"), "layers_1/attention/query/kernel"),
    **dict.fromkeys(("transfo_xl", "xlnet"), "layers_1/mixer/query/kernel"),
    "qwen3_next": "layers_1/mixer/in_proj_qkvz/kernel",
    "rnn_seq2seq": "decoder_layers_1/lstm_cell/kernel",
    "bahdanau": "decoder/attention/query/kernel",
}


def _build(family, **changes):
    settings = {k: v for k, v in SMALL.items() if k not in LACKING.get(family, ())}
    return models.build(family, **(settings | MORE.get(family, {}) | changes))


@pytest.mark.parametrize("family", FAMILIES)
def test_names_are_ours_and_the_same_for_every_model(family):
    first, second = _build(family), _build(family)
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    paths = [[v.path for v in model.trainable_variables] for model in (first, second)]
    assert paths[0] == paths[1]
    assert len(set(paths[0])) == len(paths[0])
    assert VARIABLES.get(family, "decoder_layers_1/cross_attention/key/kernel") in paths[0]


@pytest.mark.parametrize("family", ["bert", *DECODERS])
def test_keras_names_and_checkpoint_names_mean_the_same(family):
    by_keras = _build(family)
    renamed = {
        "vocab_size": 37,
        "hidden_size": 24,
        "num_attention_heads": 4,
        "intermediate_size": 29,
        "num_hidden_layers": 2,
        "max_position_embeddings": 23,
    }
    assert renamed.items() <= by_keras.config.items()


@pytest.mark.parametrize("family", DECODERS)
def test_the_step_shares_its_weights_with_the_model(family):
    model = _build(family, tie_word_embeddings=False)
    for static in (False, True):
        step = model.step_model(static=static)
        assert {id(v) for v in step.weights} == {id(v) for v in model.weights}
        assert [tuple(step.output[f"present.1.{part}"].shape) for part in ("key", "value")] == [
            (None, 2, None, 6)
        ] * 2
        assert tuple(step.output["logits"].shape) == (None, None, 37)
        assert ("cache_position" in step.input) == static


def test_unknown_families_are_named():
    with pytest.raises(
        ConfigError, match="'bort' is not implemented; implemented: .*bert, .*llama"
    ):
        models.build("bort")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("sliding_window", 0), ("sliding_window", "four"), ("attention_bias", True)],
)
def test_settings_that_mistral_does_not_have_are_refused(setting, value):
    with pytest.raises(ConfigError, match=setting):
        _build("mistral", **{setting: value})
