"""BERT (https://arxiv.org/abs/1810.04805): a post-norm encoder with learned positions."""

from keras_seqattn.models.encoder import (
    adapt_pooler,
    build_encoder,
    check_heads,
    encoder_rows,
    encoder_shapes,
)
from keras_seqattn.models.family import Family
from keras_seqattn.models.heads import BERT_HEADS
from keras_seqattn.weights.table import Row, Table, dense_rows, layer_norm_rows

DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "tie_word_embeddings": True,
    # Not a key of transformers: whether an embedding model has the pooler, which checkpoints may
    # lack.
    "add_pooling_layer": True,
}
FIXED = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
}


def _build(settings, task, initializer):
    return build_encoder(settings, task, initializer, BERT_HEADS)


def bert_heads_rows(prefix):
    """The rows of `BERT_HEADS`, as BERT's checkpoints name them.

    Args:
        prefix: what the names of the pooler start with.

    Returns:
        tuple of `Row`.
    """
    return (
        *dense_rows(f"{prefix}.pooler.dense", "pooler"),
        *dense_rows("classifier", "classifier"),
        *dense_rows("qa_outputs", "qa_outputs"),
        *dense_rows("cls.predictions.transform.dense", "masked_lm_dense"),
        *layer_norm_rows("cls.predictions.transform.LayerNorm", "masked_lm_norm"),
        Row("cls.predictions.bias", "masked_lm_bias/bias"),
        Row("cls.predictions.decoder.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
        Row("cls.predictions.decoder.bias", "masked_lm_untied_bias/bias"),
        Row("cls.predictions.decoder.weight", None),
        Row("cls.predictions.decoder.bias", None),
        Row("cls.predictions.bias", None),
        Row("cls.seq_relationship.weight", None),
        Row("cls.seq_relationship.bias", None),
    )


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
)
