"""BERT (https://arxiv.org/abs/1810.04805): a post-norm encoder with learned positions."""

import keras

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.embedding import TokenEmbedding
from keras_seqattn.layers.feed_forward import activation_function
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.positions import PositionEmbedding
from keras_seqattn.models.encoder import embed, encode
from keras_seqattn.models.family import Family
from keras_seqattn.models.functional import token_inputs
from keras_seqattn.models.heads import FirstToken, OutputBias, answer_spans, classify
from keras_seqattn.weights.table import Row, Table, dense_rows, layer_norm_rows

_DEFAULTS = {
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
_FIXED = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
}


def _build(settings, task, initializer):
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = token_inputs(*names)
    embedding = TokenEmbedding(
        settings["vocab_size"],
        settings["hidden_size"],
        tied=task != "masked_lm" or settings["tie_word_embeddings"],
        embeddings_initializer=initializer(),
        name="token_embedding",
    )
    hidden = _encode(inputs, embedding, settings, initializer)
    return inputs, _HEADS[task](hidden, embedding, settings)


def _encode(inputs, embedding, settings, initializer):
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    if width % heads:
        raise ConfigError(
            f"bert: hidden_size={width} is not a multiple of num_attention_heads={heads}."
        )
    types = TokenEmbedding(
        settings["type_vocab_size"],
        width,
        embeddings_initializer=initializer(),
        name="token_type_embedding",
    )
    positions = PositionEmbedding(
        settings["max_position_embeddings"],
        width,
        embeddings_initializer=initializer(),
        name="position_embedding",
    )
    ids = inputs["input_ids"]
    parts = [embedding(ids), positions(ids), types(inputs["token_type_ids"])]
    return encode(
        embed(parts, width, settings["layer_norm_eps"], settings["hidden_dropout_prob"]),
        inputs["attention_mask"],
        settings["num_hidden_layers"],
        num_heads=heads,
        head_dim=width // heads,
        intermediate_dim=settings["intermediate_size"],
        activation=settings["hidden_act"],
        layer_norm_epsilon=settings["layer_norm_eps"],
        dropout=settings["hidden_dropout_prob"],
        attention_dropout=settings["attention_probs_dropout_prob"],
        kernel_initializer=initializer,
    )


def _new(settings):
    """An initializer for a head's kernel."""
    return keras.initializers.RandomNormal(stddev=settings["initializer_range"])


def _head_dropout(settings):
    rate = settings["classifier_dropout"]
    return settings["hidden_dropout_prob"] if rate is None else rate


def _pool(hidden, settings):
    dense = keras.layers.Dense(
        settings["hidden_size"], "tanh", kernel_initializer=_new(settings), name="pooler"
    )
    return dense(FirstToken(name="first_token")(hidden))


def _embedding(hidden, embedding, settings):
    outputs = {"last_hidden_state": hidden}
    if settings["add_pooling_layer"]:
        outputs["pooler_output"] = _pool(hidden, settings)
    return outputs


def _sequence_classification(hidden, embedding, settings):
    pooled = _pool(hidden, settings)
    return classify(pooled, settings["num_labels"], _head_dropout(settings), _new(settings))


def _token_classification(hidden, embedding, settings):
    return classify(hidden, settings["num_labels"], _head_dropout(settings), _new(settings))


def _question_answering(hidden, embedding, settings):
    return answer_spans(hidden, _new(settings))


def _masked_lm(hidden, embedding, settings):
    width, epsilon = settings["hidden_size"], settings["layer_norm_eps"]
    dense = keras.layers.Dense(width, kernel_initializer=_new(settings), name="masked_lm_dense")
    activate = activation_function(settings["hidden_act"])
    x = keras.layers.Activation(activate, name="masked_lm_activation")(dense(hidden))
    policy = keras.config.dtype_policy()
    x = normalization("layer_norm", epsilon, width, policy, "masked_lm_norm")(x)
    name = "masked_lm_bias" if embedding.tied else "masked_lm_untied_bias"
    return {"logits": OutputBias(name=name)(embedding(x, reverse=True))}


_HEADS = {
    "embedding": _embedding,
    "sequence_classification": _sequence_classification,
    "token_classification": _token_classification,
    "question_answering": _question_answering,
    "masked_lm": _masked_lm,
}


def _adapt(config, names):
    """Checkpoints of some tasks come without the pooler."""
    if any(name.endswith("pooler.dense.weight") for name in names):
        return config
    return {**config, "add_pooling_layer": False}


_LAYER = "bert.encoder.layer.{i}"
_TABLE = Table(
    body=(
        Row("bert.embeddings.word_embeddings.weight", "token_embedding/embeddings"),
        Row("bert.embeddings.position_embeddings.weight", "position_embedding/embeddings"),
        Row("bert.embeddings.token_type_embeddings.weight", "token_type_embedding/embeddings"),
        Row("bert.embeddings.position_ids", None),
        *layer_norm_rows("bert.embeddings.LayerNorm", "embeddings_norm"),
        *dense_rows(f"{_LAYER}.attention.self.query", "layers_{i}/attention/query"),
        *dense_rows(f"{_LAYER}.attention.self.key", "layers_{i}/attention/key"),
        *dense_rows(f"{_LAYER}.attention.self.value", "layers_{i}/attention/value"),
        *dense_rows(f"{_LAYER}.attention.output.dense", "layers_{i}/attention/output_dense"),
        *layer_norm_rows(f"{_LAYER}.attention.output.LayerNorm", "layers_{i}/attention_norm"),
        *dense_rows(f"{_LAYER}.intermediate.dense", "layers_{i}/feed_forward/up"),
        *dense_rows(f"{_LAYER}.output.dense", "layers_{i}/feed_forward/down"),
        *layer_norm_rows(f"{_LAYER}.output.LayerNorm", "layers_{i}/feed_forward_norm"),
    ),
    head=(
        *dense_rows("bert.pooler.dense", "pooler"),
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
    ),
    prefix="bert.",
    renames=(("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")),
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
    defaults=_DEFAULTS,
    fixed=_FIXED,
    build=_build,
    table=_TABLE,
    adapt=_adapt,
)
