"""What tasks add to a model's hidden states."""

import keras
from keras import ops

from keras_seqattn.layers.feed_forward import activation_function
from keras_seqattn.layers.normalization import normalization


@keras.saving.register_keras_serializable(package="keras_seqattn")
class FirstToken(keras.layers.Layer):
    """The vector of the first token of each row.

    Call arguments:
        hidden: float (b, t, m).

    Returns:
        float (b, m).
    """

    def call(self, hidden):
        return hidden[:, 0]

    def compute_output_spec(self, hidden):
        return keras.KerasTensor((hidden.shape[0], hidden.shape[2]), hidden.dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class LastToken(keras.layers.Layer):
    """The vector of the last real token of each row, wherever the padding is.

    Call arguments:
        hidden: float (b, t, m).
        attention_mask: int (b, t), 1 = real.

    Returns:
        float (b, m); zeros for a row without tokens.
    """

    def call(self, hidden, attention_mask):
        mask = ops.cast(attention_mask, "int32")
        count = ops.sum(mask, axis=1, keepdims=True)
        is_last = ops.logical_and(ops.equal(ops.cumsum(mask, axis=1), count), ops.equal(mask, 1))
        return ops.sum(ops.where(ops.expand_dims(is_last, -1), hidden, 0.0), axis=1)

    def compute_output_spec(self, hidden, attention_mask):
        return keras.KerasTensor((hidden.shape[0], hidden.shape[2]), hidden.dtype)


@keras.saving.register_keras_serializable(package="keras_seqattn")
class Channel(keras.layers.Layer):
    """One channel of the last axis.

    Args:
        index: which one.

    Call arguments:
        x: float (b, t, c).

    Returns:
        float (b, t).
    """

    def __init__(self, index, **kwargs):
        super().__init__(**kwargs)
        self.index = index

    def call(self, x):
        return x[..., self.index]

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape[:-1], x.dtype)

    def get_config(self):
        return {**super().get_config(), "index": self.index}


@keras.saving.register_keras_serializable(package="keras_seqattn")
class OutputBias(keras.layers.Layer):
    """Adds one learned bias per channel; for logits made by a tied embedding.

    Call arguments:
        x: float (b, t, v).

    Returns:
        float (b, t, v).
    """

    def build(self, input_shape):
        self.bias = self.add_weight(name="bias", shape=(input_shape[-1],), initializer="zeros")

    def call(self, x):
        return ops.add(x, self.bias)

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


def classify(hidden, num_labels, dropout, initializer, name="classifier", use_bias=True):
    """Dropout and a linear classifier, over sequences or tokens.

    Args:
        hidden: float (b, m) or (b, t, m).
        num_labels: number of classes.
        dropout: rate.
        initializer: the kernel's.
        name: name of the Dense layer.
        use_bias: whether it has a bias.

    Returns:
        dict with logits, float (b, num_labels) or (b, t, num_labels).
    """
    if dropout:
        hidden = keras.layers.Dropout(dropout, name=f"{name}_dropout")(hidden)
    layer = keras.layers.Dense(
        num_labels, use_bias=use_bias, kernel_initializer=initializer, name=name
    )
    return {"logits": layer(hidden)}


def answer_spans(hidden, initializer):
    """Where the answer to a question starts and ends.

    Args:
        hidden: float (b, t, m).
        initializer: the kernel's.

    Returns:
        dict with start_logits and end_logits, float (b, t).
    """
    spans = keras.layers.Dense(2, kernel_initializer=initializer, name="qa_outputs")(hidden)
    names = ("start_logits", "end_logits")
    return {name: Channel(index, name=name)(spans) for index, name in enumerate(names)}


def pool_first(hidden, settings, name="pooler", activation="tanh"):
    """The first token's vector, through a dense layer.

    Args:
        hidden: float (b, t, m).
        settings: of the family, with hidden_size and initializer_range.
        name: name of the Dense layer.
        activation: behind it.

    Returns:
        float (b, m).
    """
    dense = keras.layers.Dense(
        settings["hidden_size"],
        activation,
        kernel_initializer=head_initializer(settings),
        name=name,
    )
    return dense(FirstToken(name="first_token")(hidden))


def head_initializer(settings):
    """An initializer for a head's kernel."""
    return keras.initializers.RandomNormal(stddev=settings["initializer_range"])


def head_dropout(settings):
    """The rate of the dropout before a head's last layer."""
    rate = settings["classifier_dropout"]
    return settings["hidden_dropout_prob"] if rate is None else rate


def _embedding(hidden, embedding, settings):
    outputs = {"last_hidden_state": hidden}
    if settings["add_pooling_layer"]:
        outputs["pooler_output"] = pool_first(hidden, settings)
    return outputs


def _sequence_classification(hidden, embedding, settings):
    pooled = pool_first(hidden, settings)
    return classify(
        pooled, settings["num_labels"], head_dropout(settings), head_initializer(settings)
    )


def _dense_sequence_classification(hidden, embedding, settings):
    pooled = pool_first(hidden, settings, "classifier_dense")
    dropout, labels = head_dropout(settings), settings["num_labels"]
    return classify(pooled, labels, dropout, head_initializer(settings), "classifier_out")


def _token_classification(hidden, embedding, settings):
    return classify(
        hidden, settings["num_labels"], head_dropout(settings), head_initializer(settings)
    )


def _question_answering(hidden, embedding, settings):
    return answer_spans(hidden, head_initializer(settings))


def _masked_lm(hidden, embedding, settings):
    width, epsilon = settings["hidden_size"], settings["layer_norm_eps"]
    dense = keras.layers.Dense(
        width, kernel_initializer=head_initializer(settings), name="masked_lm_dense"
    )
    activate = activation_function(settings["hidden_act"])
    x = keras.layers.Activation(activate, name="masked_lm_activation")(dense(hidden))
    policy = keras.config.dtype_policy()
    x = normalization("layer_norm", epsilon, width, policy, "masked_lm_norm")(x)
    name = "masked_lm_bias" if embedding.tied else "masked_lm_untied_bias"
    return {"logits": OutputBias(name=name)(embedding(x, reverse=True))}


# Task -> function of hidden states float (b, t, m), the token embedding and the settings, to the
# outputs by name.
BERT_HEADS = {
    "embedding": _embedding,
    "sequence_classification": _sequence_classification,
    "token_classification": _token_classification,
    "question_answering": _question_answering,
    "masked_lm": _masked_lm,
}
# The same, with a dense layer of the classifier's own in place of the pooler.
ROBERTA_HEADS = BERT_HEADS | {"sequence_classification": _dense_sequence_classification}
