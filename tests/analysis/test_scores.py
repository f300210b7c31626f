"""Scores of whole models against their definition."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_seqattn
from keras_seqattn import analysis, models
from keras_seqattn.errors import InputError
from keras_seqattn.layers import MultiHeadAttention
from keras_seqattn.runtime import Tokenizer
from tests.analysis.tiny import tokenizer_assets
from tests.helpers import randomise

TEXTS = ["a b c d e f g", "h i", "k"]
TARGETS = ["l m", "n o p q r", "s"]
BERT = {
    "vocab_size": 23,
    "hidden_size": 10,
    "intermediate_size": 14,
    "num_hidden_layers": 3,
    "num_attention_heads": 5,
    "max_position_embeddings": 11,
}
LLAMA = {
    "vocab_size": 23,
    "hidden_size": 24,
    "intermediate_size": 14,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
}


TOKENS = {
    "vocab_size": 23,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
STACKS = {
    "d_model": 30,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 5,
    "encoder_ffn_dim": 14,
    "decoder_ffn_dim": 22,
}
STACK_PATHS = [
    "encoder_layers_0/attention",
    "encoder_layers_1/attention",
    "decoder_layers_0/attention",
    "decoder_layers_0/cross_attention",
    "decoder_layers_1/attention",
    "decoder_layers_1/cross_attention",
]
ENCODER_DECODERS = {
    "transformer": (STACKS, STACK_PATHS),
    "bart": (STACKS, STACK_PATHS),
    "t5": (
        {"d_model": 15, "d_kv": 7, "d_ff": 14, "num_layers": 2, "num_heads": 3},
        STACK_PATHS,
    ),
    "bahdanau": (
        {"embedding_size": 5, "hidden_size": 7, "attention_size": 11, "maxout_size": 13},
        ["decoder"],
    ),
}


def build(family, **config):
    model = randomise(models.build(family, **config))
    model.assets = tokenizer_assets()
    return model


def check_sums(scores, real):
    """Real queries attend to real keys only, with weights that sum to 1."""
    for path, array in scores.items():
        assert array.dtype == np.float32
        for row, length in zip(array, real, strict=True):
            np.testing.assert_allclose(row[:, :length].sum(-1), 1, atol=1e-5, err_msg=path)
            assert (row[:, :length, length:] == 0).all(), path


def test_bert_from_texts():
    scores = analysis.attention(build("bert", **BERT), TEXTS)
    assert list(scores) == [f"layers_{i}/attention" for i in range(3)]
    assert all(array.shape == (3, 5, 8, 8) for array in scores.values())
    check_sums(scores, real=[8, 3, 2])
    assert scores.tokens == [[*"abcdefg", "</s>"], ["h", "i", "</s>"], ["k", "</s>"]]
    assert scores.decoder_tokens is None and scores.target_tokens is None


def test_llama_from_arrays():
    ids = np.random.default_rng(0).integers(4, 23, (2, 7))
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3])
    scores = analysis.attention(build("llama", **LLAMA), {"input_ids": ids, "attention_mask": mask})
    assert list(scores) == ["layers_0/attention", "layers_1/attention"]
    check_sums(scores, real=[7, 4])
    assert all((np.triu(array, 1) == 0).all() for array in scores.values())
    assert [len(row) for row in scores.tokens] == [7, 4]


@pytest.mark.parametrize("family", ENCODER_DECODERS)
def test_encoder_decoders_from_texts(family):
    config, paths = ENCODER_DECODERS[family]
    model = build(family, **config, **TOKENS)
    scores = analysis.attention(model, TEXTS, TARGETS)
    assert sorted(scores) == sorted(paths)
    for path, array in scores.items():
        queries, keys = ([8, 3, 2] if "encoder" in path.split("_")[0] else [3, 6, 2]), [8, 3, 2]
        if path.endswith("/attention"):
            keys = queries
        assert array.shape[2:] == (max(queries), max(keys))
        for row, query_count, key_count in zip(array, queries, keys, strict=True):
            np.testing.assert_allclose(row[:, :query_count, :key_count].sum(-1), 1, atol=1e-5)
            assert (row[:, :query_count, key_count:] == 0).all()
    assert scores.tokens[1] == ["h", "i", "</s>"]
    assert scores.decoder_tokens == [["<s>", *row.split()] for row in TARGETS]
    assert scores.target_tokens == [[*row.split(), "</s>"] for row in TARGETS]


def test_a_fixed_context_has_nothing_to_show():
    model = build("rnn_seq2seq", **TOKENS, embedding_size=5, hidden_size=7, num_hidden_layers=2)
    with pytest.raises(InputError, match="no attention layer"):
        analysis.attention(model, TEXTS, TARGETS)


@pytest.mark.parametrize("family", ["transformer", "bahdanau"])
def test_scores_of_what_the_model_generates(family):
    model = build(family, **ENCODER_DECODERS[family][0], **TOKENS)
    settings = {"max_new_tokens": 5, "num_beams": 1}
    scores = analysis.attention(model, TEXTS[:2], **settings)
    written = keras_seqattn.generate(model, [[4, 5, 6, 7, 8, 9, 10, 2], [11, 12, 2]], **settings)
    tokenizer = Tokenizer(model.assets)
    for shown, ids in zip(scores.target_tokens, written, strict=True):
        assert shown[: len(ids)] == [tokenizer.decode([i], special_tokens=True) for i in ids]
        assert shown[-1] == "</s>"
    # The same from the texts that were generated.
    texts = [" ".join(row[:-1]) for row in scores.target_tokens]
    again = analysis.attention(model, TEXTS[:2], texts)
    for path in scores:
        np.testing.assert_allclose(again[path], scores[path], atol=1e-5)


def test_scores_are_the_softmax_of_the_formula():
    layer = MultiHeadAttention(3, 2, name="attention")
    inputs = keras.Input((None, 6), name="x")
    model = randomise(keras.Model({"x": inputs}, layer(inputs)))
    x = np.random.default_rng(2).standard_normal((2, 5, 6)).astype("float32")
    (scores,) = analysis.attention(model, {"x": x}).values()
    query, key = (
        (x @ ops.convert_to_numpy(dense.kernel) + ops.convert_to_numpy(dense.bias))
        .reshape(2, 5, 3, 2)
        .transpose(0, 2, 1, 3)
        for dense in (layer.query, layer.key)
    )
    logits = query @ key.transpose(0, 1, 3, 2) / 2**0.5
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_looking_changes_nothing():
    model = build("bert", **BERT)
    inputs = {
        "input_ids": np.array([[5, 6, 7]]),
        "attention_mask": np.ones((1, 3), "int32"),
        "token_type_ids": np.zeros((1, 3), "int32"),
    }
    before = ops.convert_to_numpy(model(inputs)["last_hidden_state"])
    analysis.attention(model, inputs)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(inputs)["last_hidden_state"]), before)


def test_a_layer_called_twice_is_kept_twice():
    layer = MultiHeadAttention(3, 2, name="shared")
    inputs = keras.Input((None, 6), name="x")
    model = keras.Model({"x": inputs}, layer(layer(inputs)))
    scores = analysis.attention(model, {"x": np.ones((1, 4, 6), "float32")})
    assert list(scores) == ["shared", "shared#1"]


def test_refusals():
    model = build("bert", **BERT)
    with pytest.raises(InputError, match="attention_mask, token_type_ids"):
        analysis.attention(model, {"input_ids": np.ones((1, 3), "int32")})
    with pytest.raises(InputError, match="no decoder"):
        analysis.attention(model, TEXTS, targets=TEXTS)
    with pytest.raises(InputError, match="a list of texts"):
        analysis.attention(model, [1, 2])
    model.assets = {}
    with pytest.raises(InputError, match=r"tokenizer\.json"):
        analysis.attention(model, TEXTS)
    inputs = keras.Input((4,), name="x")
    plain = keras.Model({"x": inputs}, keras.layers.Dense(3)(inputs))
    with pytest.raises(InputError, match="no attention layer"):
        analysis.attention(plain, {"x": np.ones((1, 4), "float32")})
