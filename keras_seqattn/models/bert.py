"""BERT (https://arxiv.org/abs/1810.04805): a post-norm encoder with learned positions."""

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
from keras_seqattn.weights.table import Table


def _build(settings, task, initializer):
    return build_encoder(bert_spec(settings, task, initializer), settings, task, initializer)


FAMILY = Family(
    model_type="bert",
    architectures={
        "embedding": "BertModel",
        "sequence_classification": "BertForSequenceClassification",
        "token_classification": "BertForTokenClassification",
        "question_answering": "BertForQuestionAnswering",
        "masked_lm": "BertForMaskedLM",
    },
    aliases={"BertForPreTraining": "masked_lm"},
    defaults=DEFAULTS,
    fixed=FIXED,
    build=_build,
    table=Table(
        body=encoder_rows("bert"),
        head=bert_heads_rows("bert"),
        prefix="bert.",
        renames=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
    ),
    adapt=adapt_pooler,
    check=check_heads,
    shapes=encoder_shapes("bert"),
    unsaved=("add_pooling_layer",),
)
