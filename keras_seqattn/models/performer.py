"""Performer (https://arxiv.org/abs/2009.14794): a pre-norm Transformer with FAVOR+.

It has rotary positions. It is bidirectional for the tasks of an encoder, and causal as a language
model.
"""

from keras_seqattn.layers.mechanisms.performer import Performer
from keras_seqattn.models.bert_like import (
    adapt_pooler,
    bert_heads_rows,
    encoder_rows,
    encoder_shapes,
)
from keras_seqattn.models.decoder import DecoderSpec, decoder_model, step_model
from keras_seqattn.models.embedders import TokenEmbedder
from keras_seqattn.models.encoder import EncoderSpec, build_encoder
from keras_seqattn.models.family import Family
from keras_seqattn.models.llama_like import check_rotary_heads, read_heads
from keras_seqattn.models.rope import read_rotary_positions
from keras_seqattn.models.values import MOST, SIZE, Whole
from keras_seqattn.weights.rows import WeightRow, layer_norm_rows
from keras_seqattn.weights.table import Table

_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": None,
    "head_dim": None,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.0,
    "max_position_embeddings": 4096,
    "layer_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "add_pooling_layer": True,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": None,
    "original_max_position_embeddings": None,
    # The number of random features of each head. They are weights. They are drawn from the seed,
    # and each layer has others.
    "num_random_features": 256,
    "random_features_seed": 1,
}
_ATTENTION = "performer.encoder.layer.{i}.attention.self"
_STATES = "num_hidden_layers * num_key_value_heads * num_random_features * head_dim"


def _build(settings, task, initializer):
    layers, block = _layers(settings), _block(settings)
    tied = task not in ("causal_lm", "masked_lm") or settings["tie_word_embeddings"]
    sizes = settings["vocab_size"], settings["hidden_size"]
    if task == "causal_lm":
        spec = DecoderSpec(*sizes, layers=layers, block=block, tied=tied)
        return decoder_model(spec, settings, task, initializer)
    embedder = TokenEmbedder(*sizes, tied=tied)
    spec = EncoderSpec(embedder, layers, block, numbered_blocks=True, final_norm=True)
    return build_encoder(spec, settings, task, initializer)


def _layers(settings):
    size, seed = settings["num_random_features"], settings["random_features_seed"]
    count = settings["num_hidden_layers"]
    return tuple({"attention": Performer(size, seed + index)} for index in range(count))


def _block(settings):
    heads = read_heads(settings)
    return {
        **heads,
        "intermediate_dim": settings["intermediate_size"],
        "activation": settings["hidden_act"],
        "norm": "layer_norm",
        "layer_norm_epsilon": settings["layer_norm_eps"],
        "normalize_first": True,
        # With its state, a stream can go on for ever.
        "positions": read_rotary_positions({**settings, **heads}, unbounded=True),
        "dropout": settings["hidden_dropout_prob"],
        "attention_dropout": settings["attention_probs_dropout_prob"],
    }


FAMILY = Family(
    model_type="performer",
    architectures={
        "embedding": "PerformerModel",
        "sequence_classification": "PerformerForSequenceClassification",
        "token_classification": "PerformerForTokenClassification",
        "question_answering": "PerformerForQuestionAnswering",
        "masked_lm": "PerformerForMaskedLM",
        "causal_lm": "PerformerForCausalLM",
    },
    defaults=_DEFAULTS,
    fixed={},
    build=_build,
    table=Table(
        body=(
            *encoder_rows("performer"),
            WeightRow(
                f"{_ATTENTION}.random_features",
                "layers_{i}/attention/mechanism/projection",
            ),
            *layer_norm_rows("performer.encoder.LayerNorm", "norm"),
        ),
        head=bert_heads_rows("performer"),
        prefix="performer.",
    ),
    adapt=adapt_pooler,
    check=check_rotary_heads,
    shapes={
        name: shape
        for name, shape in encoder_shapes("performer").items()
        if not name.endswith(("position_embeddings.weight", "token_type_embeddings.weight"))
    }
    | {
        f"{_ATTENTION}.query.weight": ("num_attention_heads * head_dim", "hidden_size"),
        f"{_ATTENTION}.random_features": ("num_random_features", "head_dim"),
    },
    extent=("max_position_embeddings * head_dim", _STATES),
    step=step_model,
    # The seed grows by one with each layer.
    keys={"num_random_features": SIZE, "random_features_seed": Whole(0, MOST // 2)},
    unsaved=("add_pooling_layer",),
)
