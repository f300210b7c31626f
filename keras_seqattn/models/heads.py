"""The heads: from the hidden states of a model to the outputs of a task, one head for each task."""

import dataclasses
from collections.abc import Callable

import keras

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.embedding import TokenEmbedding
from keras_seqattn.layers.feed_forward import activation_function
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.outputs import Channel, FirstToken, LastToken, OutputBias


@dataclasses.dataclass(frozen=True)
class Body:
    """A model without its head, up to the last hidden states.

    Attributes:
        hidden: float (b, t, m), the last hidden states (in an encoder-decoder, of the decoder).
        inputs: the symbolic inputs of the model, by name.
        embedding: the `TokenEmbedding`, which heads may use for logits over the vocabulary; or
            None.
        logits: function from hidden states to logits over the vocabulary, float (b, t, v); None if
            the head makes them.
        causal: each vector depends only on its own token and earlier tokens.
    """

    hidden: keras.KerasTensor
    inputs: dict
    embedding: TokenEmbedding | None = None
    logits: Callable | None = None
    causal: bool = False


def apply_head(task, body, settings, own=None):
    """The outputs of a task.

    Args:
        task: name of the task.
        body: a `Body`.
        settings: settings of the family.
        own: None, or a dict of heads that replace those of `HEADS`.

    Returns:
        dict of name -> symbolic output.

    Raises:
        ConfigError: no head is declared for the task.
    """
    heads = HEADS | (own or {})
    if task not in heads:
        raise ConfigError(
            f"no head is declared for the task {shown(task)}; there are {', '.join(heads)}. Others "
            "can be added with keras_seqattn.models.register_head."
        )
    return heads[task](body, settings)


def classify(hidden, num_labels, dropout, initializer, name="classifier", use_bias=True):
    """Dropout and a linear classifier, over sequences or tokens.

    Args:
        hidden: float (b, m) or (b, t, m).
        num_labels: number of classes.
        dropout: rate.
        initializer: initializer of the kernel.
        name: name of the Dense layer.
        use_bias: whether the layer has a bias.

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
    """Logits for the start and the end of the answer to a question.

    Args:
        hidden: float (b, t, m).
        initializer: initializer of the kernel.

    Returns:
        dict with start_logits and end_logits, float (b, t).
    """
    spans = keras.layers.Dense(2, kernel_initializer=initializer, name="qa_outputs")(hidden)
    names = ("start_logits", "end_logits")
    return {name: Channel(index, name=name)(spans) for index, name in enumerate(names)}


def pool_first(hidden, settings, name="pooler", activation="tanh"):
    """Apply a Dense layer to the vector of the first token.

    Args:
        hidden: float (b, t, m).
        settings: settings of the family.
        name: name of the Dense layer.
        activation: activation of the Dense layer.

    Returns:
        float (b, m).
    """
    width, new = hidden.shape[-1], head_initializer(settings)
    dense = keras.layers.Dense(width, activation, kernel_initializer=new, name=name)
    return dense(FirstToken(name="first_token")(hidden))


def head_initializer(settings):
    """An initializer for the kernel of a head."""
    return keras.initializers.RandomNormal(stddev=settings["initializer_range"])


def head_dropout(settings):
    """The rate of the dropout before the last layer of a head."""
    rates = (settings.get(key) for key in ("classifier_dropout", "hidden_dropout_prob", "dropout"))
    return next((rate for rate in rates if rate is not None), 0.0)


def _embedding(body, settings):
    outputs = {"last_hidden_state": body.hidden}
    if settings.get("add_pooling_layer"):
        outputs["pooler_output"] = pool_first(body.hidden, settings)
    return outputs


def _sequence_classification(body, settings):
    labels, new = settings["num_labels"], head_initializer(settings)
    if body.causal:
        # Only the last token sees all other tokens.
        last = LastToken(name="last_token")(body.hidden, body.inputs["attention_mask"])
        return classify(last, labels, 0.0, new, "score", use_bias=False)
    return classify(pool_first(body.hidden, settings), labels, head_dropout(settings), new)


def dense_sequence_classification(body, settings):
    """The head of RoBERTa: a dense layer of the classifier replaces the pooler."""
    pooled = pool_first(body.hidden, settings, "classifier_dense")
    dropout, labels = head_dropout(settings), settings["num_labels"]
    return classify(pooled, labels, dropout, head_initializer(settings), "classifier_out")


def _token_classification(body, settings):
    labels, new = settings["num_labels"], head_initializer(settings)
    return classify(body.hidden, labels, head_dropout(settings), new)


def _question_answering(body, settings):
    return answer_spans(body.hidden, head_initializer(settings))


def _masked_lm(body, settings):
    width, new = body.hidden.shape[-1], head_initializer(settings)
    dense = keras.layers.Dense(width, kernel_initializer=new, name="masked_lm_dense")
    activate = activation_function(settings["hidden_act"])
    x = keras.layers.Activation(activate, name="masked_lm_activation")(dense(body.hidden))
    epsilon, policy = settings["layer_norm_eps"], keras.config.dtype_policy()
    x = normalization("layer_norm", epsilon, width, policy, "masked_lm_norm")(x)
    name = "masked_lm_bias" if body.embedding.tied else "masked_lm_untied_bias"
    return {"logits": OutputBias(name=name)(body.embedding(x, reverse=True))}


def _next_token(body, settings):
    return {"logits": body.logits(body.hidden)}


# Task -> head: a function from a `Body` and the settings of its family to a dict of outputs.
HEADS = {
    "embedding": _embedding,
    "sequence_classification": _sequence_classification,
    "token_classification": _token_classification,
    "question_answering": _question_answering,
    "masked_lm": _masked_lm,
    "causal_lm": _next_token,
    "seq2seq_lm": _next_token,
}
