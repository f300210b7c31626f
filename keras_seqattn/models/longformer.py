"""Longformer (https://arxiv.org/abs/2004.05150): RoBERTa with windows and global tokens.

Positions count only real tokens, with padding on either side. They begin at `pad_token_id + 1`, the
row of the position table for the first token.
"""

from keras_seqattn.errors import ConfigError
from keras_seqattn.models.bert_like import (
    DEFAULTS,
    FIXED,
    adapt_pooler,
    bert_spec,
    check_heads,
    encoder_rows,
    encoder_shapes,
)
from keras_seqattn.models.encoder import build_encoder
from keras_seqattn.models.family import Family
from keras_seqattn.models.heads import HEADS, dense_sequence_classification
from keras_seqattn.models.longformer_like import (
    WINDOW_DEFAULTS,
    WINDOW_EXTENT,
    WINDOW_KEYS,
    global_rows,
    most_global_tokens,
    window_attentions,
)
from keras_seqattn.ports import names
from keras_seqattn.weights.rows import WeightRow, dense_rows, layer_norm_rows
from keras_seqattn.weights.table import Table


def _build(settings, task, initializer):
    padding = settings["pad_token_id"]
    if padding is None or padding + 1 >= settings["max_position_embeddings"]:
        raise ConfigError(
            f"longformer: pad_token_id must be a token id below max_position_embeddings - 1, "
            f"since positions start behind it, not {padding}."
        )
    layers, width = settings["num_hidden_layers"], settings["hidden_size"]
    attentions = window_attentions("longformer", settings, layers, width, initializer)
    extras = (names.global_mask(most_global_tokens(settings)),)
    spec = bert_spec(settings, task, initializer, attentions, extras, offset=padding + 1)
    return build_encoder(spec, settings, task, initializer, _HEADS)


def _masked_lm(body, settings):
    # The activation of the blocks may be another one.
    return HEADS["masked_lm"](body, {**settings, "hidden_act": "gelu"})


_HEADS = {"sequence_classification": dense_sequence_classification, "masked_lm": _masked_lm}


def _longest(settings, side):
    """For `Family.longest`: the first rows of the position table are for padding."""
    return settings["max_position_embeddings"] - (settings["pad_token_id"] + 1)


FAMILY = Family(
    model_type="longformer",
    architectures={
        "embedding": "LongformerModel",
        "sequence_classification": "LongformerForSequenceClassification",
        "token_classification": "LongformerForTokenClassification",
        "question_answering": "LongformerForQuestionAnswering",
        "masked_lm": "LongformerForMaskedLM",
    },
    defaults=DEFAULTS | {"pad_token_id": 1} | WINDOW_DEFAULTS,
    fixed=FIXED,
    build=_build,
    table=Table(
        body=(
            *encoder_rows("longformer"),
            *global_rows("longformer.encoder.layer.{i}.attention.self", "layers_{i}/attention"),
        ),
        head=(
            *dense_rows("longformer.pooler.dense", "pooler"),
            *dense_rows("classifier.dense", "classifier_dense"),
            *dense_rows("classifier.out_proj", "classifier_out"),
            *dense_rows("classifier", "classifier"),
            *dense_rows("qa_outputs", "qa_outputs"),
            *dense_rows("lm_head.dense", "masked_lm_dense"),
            *layer_norm_rows("lm_head.layer_norm", "masked_lm_norm"),
            WeightRow("lm_head.bias", "masked_lm_bias/bias"),
            WeightRow("lm_head.decoder.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
            WeightRow("lm_head.decoder.bias", "masked_lm_untied_bias/bias"),
            WeightRow("lm_head.decoder.weight", None),
            WeightRow("lm_head.decoder.bias", None),
            WeightRow("lm_head.bias", None),
        ),
        prefix="longformer.",
    ),
    adapt=adapt_pooler,
    check=check_heads,
    shapes=encoder_shapes("longformer"),
    extent=(*WINDOW_EXTENT, "max_global_tokens * hidden_size"),
    keys=WINDOW_KEYS,
    unsaved=("add_pooling_layer",),
    longest=_longest,
    most_global_tokens=most_global_tokens,
)
