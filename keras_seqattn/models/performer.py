"""Performer (https://arxiv.org/abs/2009.14794): a pre-norm Transformer with FAVOR+ and rotary
positions, bidirectional for the tasks of an encoder, causal for a language model.
"""

from keras_seqattn.layers.mechanisms.performer import Performer
from keras_seqattn.models.bert import bert_heads_rows
from keras_seqattn.models.decoder import (
    DecoderSpec,
    decoder_model,
    full_pass,
    make_layers,
    step_model,
)
from keras_seqattn.models.encoder import adapt_pooler, encoder_rows, encoder_shapes
from keras_seqattn.models.family import Family
from keras_seqattn.models.functional import symbolic
from keras_seqattn.models.heads import BERT_HEADS
from keras_seqattn.models.llama import check_rotary_heads, read_heads
from keras_seqattn.models.rope import read_rotary_positions
from keras_seqattn.ports import names
from keras_seqattn.weights.table import Row, Table, layer_norm_rows

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
    # How many random features each head has. They are weights, drawn from the seed, other ones in
    # each layer.
    "num_random_features": 256,
    "random_features_seed": 1,
}
_ATTENTION = "performer.encoder.layer.{i}.attention.self"
_STATES = "num_hidden_layers * num_key_value_heads * num_random_features * head_dim"


def _build(settings, task, initializer):
    spec = _spec(settings, task)
    if task == "causal_lm":
        return decoder_model(spec, settings, task, initializer)
    inputs = symbolic(names.tokens(settings["vocab_size"]), names.mask())
    layers = make_layers(spec, initializer)
    hidden = full_pass(layers, **inputs)
    return inputs, BERT_HEADS[task](hidden, layers["token_embedding"], settings)


def _spec(settings, task):
    heads = read_heads(settings)
    seeds = range(settings["num_hidden_layers"])
    return DecoderSpec(
        vocabulary_size=settings["vocab_size"],
        hidden_dim=settings["hidden_size"],
        layers=tuple(
            {
                "attention": Performer(
                    settings["num_random_features"], settings["random_features_seed"] + index
                )
            }
            for index in seeds
        ),
        tied=task not in ("causal_lm", "masked_lm") or settings["tie_word_embeddings"],
        bidirectional=task != "causal_lm",
        block={
            **heads,
            "intermediate_dim": settings["intermediate_size"],
            "activation": settings["hidden_act"],
            "norm": "layer_norm",
            "layer_norm_epsilon": settings["layer_norm_eps"],
            "normalize_first": True,
            # Its state lets a stream go on for ever.
            "positions": read_rotary_positions({**settings, **heads}, unbounded=True),
            "dropout": settings["hidden_dropout_prob"],
            "attention_dropout": settings["attention_probs_dropout_prob"],
        },
    )


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
            Row(
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
)
