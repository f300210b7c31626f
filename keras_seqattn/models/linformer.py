"""Linformer (https://arxiv.org/abs/2006.04768): BERT with attention to mixtures of tokens."""

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.mechanisms.linformer import SHARING, Linformer
from keras_seqattn.models.bert_like import (
    DEFAULTS,
    FIXED,
    adapt_pooler,
    bert_heads_rows,
    bert_spec,
    check_heads,
    encoder_rows,
    encoder_shapes,
)
from keras_seqattn.models.encoder import build_encoder
from keras_seqattn.models.family import Family
from keras_seqattn.models.values import SIZE, TEXT
from keras_seqattn.weights.rows import WeightRow
from keras_seqattn.weights.table import Table

_LAYER = "linformer.encoder.layer.{i}.attention.self"
_MECHANISM = "layers_{i}/attention/mechanism"


def _build(settings, task, initializer):
    shared = settings["projection_sharing"]
    if shared not in SHARING:
        raise ConfigError(
            f"linformer: projection_sharing={shown(shared)} is not implemented; implemented: "
            f"{', '.join(SHARING)}."
        )
    layers = range(settings["num_hidden_layers"])
    sizes = settings["num_projections"], settings["max_position_embeddings"], shared
    attentions = [Linformer(*sizes) for _ in layers]
    # Positions count only real tokens, like the rows of the projections.
    spec = bert_spec(settings, task, initializer, attentions, offset=0)
    return build_encoder(spec, settings, task, initializer)


FAMILY = Family(
    model_type="linformer",
    architectures={
        "embedding": "LinformerModel",
        "sequence_classification": "LinformerForSequenceClassification",
        "token_classification": "LinformerForTokenClassification",
        "question_answering": "LinformerForQuestionAnswering",
        "masked_lm": "LinformerForMaskedLM",
    },
    defaults=DEFAULTS | {"num_projections": 256, "projection_sharing": "heads"},
    fixed=FIXED,
    build=_build,
    table=Table(
        body=(
            *encoder_rows("linformer"),
            WeightRow(f"{_LAYER}.key_projection", f"{_MECHANISM}/key_projection"),
            WeightRow(f"{_LAYER}.value_projection", f"{_MECHANISM}/value_projection"),
        ),
        head=bert_heads_rows("linformer"),
        prefix="linformer.",
    ),
    adapt=adapt_pooler,
    check=check_heads,
    keys={"num_projections": SIZE, "projection_sharing": TEXT},
    unsaved=("add_pooling_layer",),
    shapes={
        **encoder_shapes("linformer"),
        f"{_LAYER}.key_projection": ("max_position_embeddings", "num_projections"),
    },
)
