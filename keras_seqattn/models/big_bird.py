"""BigBird (https://arxiv.org/abs/2007.14062): BERT with block-sparse attention.

With attention_type="block_sparse" every input gives the same result as in transformers in
inference; short inputs attend to everything (see `BlockSparseAttention`). There is one difference:
in transformers, one short input switches the model to full attention for ever. Here, the next long
input is sparse again.
"""

import dataclasses

import keras
from keras import ops

from keras_seqattn.layers.embedding import EmbeddingSum
from keras_seqattn.layers.feed_forward import FeedForward, activation_function
from keras_seqattn.layers.normalization import normalization
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
from keras_seqattn.models.big_bird_like import (
    SPARSE_DEFAULTS,
    SPARSE_EXTENT,
    SPARSE_KEYS,
    source_multiple,
    sparse_attentions,
)
from keras_seqattn.models.encoder import build_encoder
from keras_seqattn.models.family import Family
from keras_seqattn.models.heads import (
    HEADS,
    answer_spans,
    classify,
    head_dropout,
    head_initializer,
    pool_first,
)
from keras_seqattn.models.values import FLAG, TOKEN
from keras_seqattn.weights.rows import dense_rows, layer_norm_rows
from keras_seqattn.weights.table import Table


@keras.saving.register_keras_serializable(package="keras_seqattn")
class UnusedPooler(keras.layers.Layer):
    """Keeps the weights of a pooler: checkpoints have them even for tasks that do not use them.

    Call arguments:
        hidden: float (b, t, m).

    Returns:
        hidden, unchanged.
    """

    def build(self, shape):
        width = shape[-1]
        self.kernel = self.add_weight(shape=(width, width), name="kernel", trainable=False)
        self.bias = self.add_weight(shape=(width,), name="bias", trainable=False)

    def call(self, hidden):
        return hidden

    def compute_output_spec(self, hidden):
        return keras.KerasTensor(hidden.shape, hidden.dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class OutsideQuestion(keras.layers.Layer):
    """Lowers the logits of the question, the second token to the first separator, by a million.

    Args:
        separator: the token after the question.

    Call arguments:
        logits: float (b, t).
        input_ids: int (b, t).

    Returns:
        float (b, t).
    """

    def __init__(self, separator, **kwargs):
        super().__init__(**kwargs)
        self.separator = separator

    def call(self, logits, input_ids):
        found = ops.cast(ops.equal(input_ids, self.separator), "int32")
        before = ops.subtract(ops.cumsum(found, axis=1), found)
        some = ops.any(ops.cast(found, "bool"), axis=1, keepdims=True)
        inside = ops.logical_and(ops.equal(before, 0), some)
        place = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        inside = ops.logical_and(inside, ops.greater(place, 0))
        return ops.where(inside, ops.subtract(logits, 1e6), logits)

    def compute_output_spec(self, logits, input_ids):
        return keras.KerasTensor(logits.shape, logits.dtype)

    def get_config(self):
        return {**super().get_config(), "separator": self.separator}


def _build(settings, task, initializer):
    attentions = sparse_attentions(settings, settings["num_hidden_layers"])
    spec = bert_spec(settings, task, initializer, attentions)
    return build_encoder(spec, settings, task, initializer, _HEADS)


def _beside_pooler(head):
    def build(body, settings):
        if settings["add_pooling_layer"]:
            hidden = UnusedPooler(name="pooler")(body.hidden)
            body = dataclasses.replace(body, hidden=hidden)
        return head(body, settings)

    return build


def _sequence_classification(body, settings):
    rate, hidden = head_dropout(settings), body.hidden
    if rate:
        hidden = keras.layers.Dropout(rate, name="classifier_dense_dropout")(hidden)
    activation = activation_function(settings["hidden_act"])
    pooled = pool_first(hidden, settings, "classifier_dense", activation)
    new = head_initializer(settings)
    return classify(pooled, settings["num_labels"], rate, new, "classifier_out")


def _question_answering(body, settings):
    rate, hidden = settings["hidden_dropout_prob"], body.hidden
    if rate:
        hidden = keras.layers.Dropout(rate, name="qa_dropout")(hidden)
    hidden = FeedForward(
        settings["intermediate_size"],
        activation=settings["hidden_act"],
        kernel_initializer=head_initializer(settings),
        name="qa_feed_forward",
    )(hidden)
    if rate:
        hidden = keras.layers.Dropout(rate, name="qa_feed_forward_dropout")(hidden)
    hidden = EmbeddingSum(name="qa_sum")(hidden, body.hidden)
    policy, width = keras.config.dtype_policy(), settings["hidden_size"]
    norm = normalization("layer_norm", settings["layer_norm_eps"], width, policy, "qa_norm")
    outputs = answer_spans(norm(hidden), head_initializer(settings))
    separator, ids = settings["sep_token_id"], body.inputs["input_ids"]
    if separator is None:
        return outputs
    return {
        name: OutsideQuestion(separator, name=f"{name}_outside")(x, ids)
        for name, x in outputs.items()
    }


_HEADS = {
    "sequence_classification": _beside_pooler(_sequence_classification),
    "token_classification": _beside_pooler(HEADS["token_classification"]),
    "question_answering": _question_answering,
    "masked_lm": _beside_pooler(HEADS["masked_lm"]),
}

FAMILY = Family(
    model_type="big_bird",
    architectures={
        "embedding": "BigBirdModel",
        "sequence_classification": "BigBirdForSequenceClassification",
        "token_classification": "BigBirdForTokenClassification",
        "question_answering": "BigBirdForQuestionAnswering",
        "masked_lm": "BigBirdForMaskedLM",
    },
    aliases={"BigBirdForPreTraining": "masked_lm"},
    defaults=DEFAULTS
    | SPARSE_DEFAULTS
    | {
        "vocab_size": 50358,
        "hidden_act": "gelu_new",
        "max_position_embeddings": 4096,
        "use_bias": True,
        "rescale_embeddings": False,
        "sep_token_id": 66,
    },
    fixed=FIXED,
    build=_build,
    table=Table(
        body=encoder_rows("bert"),
        head=(
            *dense_rows("bert.pooler", "pooler"),
            *dense_rows("classifier.dense", "classifier_dense"),
            *dense_rows("classifier.out_proj", "classifier_out"),
            *dense_rows("qa_classifier.intermediate.dense", "qa_feed_forward/up"),
            *dense_rows("qa_classifier.output.dense", "qa_feed_forward/down"),
            *layer_norm_rows("qa_classifier.output.LayerNorm", "qa_norm"),
            *dense_rows("qa_classifier.qa_outputs", "qa_outputs"),
            *bert_heads_rows("bert"),
        ),
        prefix="bert.",
    ),
    adapt=adapt_pooler,
    check=check_heads,
    shapes=encoder_shapes("bert"),
    extent=SPARSE_EXTENT,
    keys=SPARSE_KEYS | {"rescale_embeddings": FLAG, "sep_token_id": TOKEN},
    unsaved=("add_pooling_layer",),
    source_multiple=source_multiple,
)
