"""The common part of recurrent encoder-decoders: embeddings, logits, and the inputs of a step."""

import functools

import keras

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.embedding import TokenEmbedding
from keras_seqattn.models.functional import symbolic
from keras_seqattn.models.heads import Body, apply_head
from keras_seqattn.models.values import SIZE
from keras_seqattn.ports import Port, names
from keras_seqattn.weights.rows import WeightRow, dense_rows

DEFAULTS = {
    "dropout": 0.0,
    # One token embedding for sources and targets; the logits use the embedding of the targets.
    "share_encoder_decoder_embeddings": False,
    "tie_word_embeddings": False,
    # None is Glorot's uniform initializer.
    "init_std": None,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
}

KEYS = {"embedding_size": SIZE}
KERAS_NAMES = {"embedding_dim": ("embedding_size",)}
EMBEDDING_ROWS = (
    WeightRow("shared.weight", "token_embedding/embeddings"),
    WeightRow("encoder.embed_tokens.weight", "encoder_embedding/embeddings"),
    WeightRow("decoder.embed_tokens.weight", "decoder_embedding/embeddings"),
)
EMBEDDING_SHAPES = {
    ("shared.weight", "encoder.embed_tokens.weight"): ("vocab_size", "embedding_size")
}
HEAD_ROWS = dense_rows("lm_head", "lm_head")


def model_inputs(settings):
    """The symbolic inputs of a whole model, by name."""
    size = settings["vocab_size"]
    return symbolic(*_source_ports(size), names.targets(size))


def encoder_inputs(model):
    """The symbolic inputs of the encoder of a model, by name."""
    return symbolic(*names.source_ports(model.ports))


def step_tokens(model):
    """The `Port` of the new tokens of a step."""
    return names.tokens(model.ports.first("targets").below, length=names.TARGET)


def state_inputs(states, layer):
    """The symbolic states float (b, n) of a recurrent layer at the start of a step, by name.

    Args:
        states: (index, name) of each state, for example (0, "hidden").
        layer: the layer.
    """
    ports = []
    for index, name in states:
        past, present = names.state_names(index, name)
        axes = (names.BATCH, layer.units)
        ports.append(Port(past, "state", axes, layer.compute_dtype, follows=present))
    return symbolic(*ports)


def _source_ports(vocabulary_size):
    return (
        names.tokens(vocabulary_size, length=names.SOURCE),
        names.mask(length=names.SOURCE),
    )


def make_embeddings(family, settings, output_dim, initializer):
    """The layers at both ends of the stacks, by name.

    Args:
        family: the `model_type`, for messages.
        settings: dict with the keys of `DEFAULTS`, vocab_size and embedding_size.
        output_dim: width of the vectors before the logits.
        initializer: function that makes a kernel initializer.

    Returns:
        dict with token_embedding, or encoder_embedding and decoder_embedding; encoder_dropout and
        decoder_dropout if there is dropout; and lm_head if the logits are not tied.

    Raises:
        ConfigError: the tied embedding has another width.
    """
    width, vocabulary = settings["embedding_size"], settings["vocab_size"]
    tied, shared = settings["tie_word_embeddings"], settings["share_encoder_decoder_embeddings"]
    names = ("token_embedding",) if shared else ("encoder_embedding", "decoder_embedding")
    if settings["init_std"] is None:
        # Glorot's deviation depends on the number of tokens, which is wrong for embeddings.
        spread = functools.partial(keras.initializers.RandomNormal, stddev=width**-0.5)
    else:
        spread = initializer
    layers = {
        name: TokenEmbedding(vocabulary, width, embeddings_initializer=spread(), name=name)
        for name in names
    }
    if tied and output_dim != width:
        raise ConfigError(
            f"{family}: with tie_word_embeddings the logits are made of vectors as wide as "
            f"embedding_size={width}, not {output_dim}."
        )
    if not tied:
        layers["lm_head"] = keras.layers.Dense(
            vocabulary, use_bias=False, kernel_initializer=initializer(), name="lm_head"
        )
    if settings["dropout"]:
        for name in ("encoder_dropout", "decoder_dropout"):
            layers[name] = keras.layers.Dropout(settings["dropout"], name=name)
    return layers


def embed(layers, side, ids):
    """The vectors of tokens.

    Args:
        layers: dict with the layers of `make_embeddings`.
        side: "encoder" or "decoder".
        ids: int (b, t).

    Returns:
        float (b, t, m).
    """
    return drop(layers, side, embedding_of(layers, side)(ids))


def drop(layers, side, x):
    """Apply the dropout of "encoder" or "decoder" to `x`, if the model has one."""
    name = f"{side}_dropout"
    return layers[name](x) if name in layers else x


def embedding_of(layers, side):
    """The token embedding of "encoder" or "decoder"."""
    return layers.get("token_embedding") or layers[f"{side}_embedding"]


def logits(layers, x):
    """The logits of vectors float (b, t, m): float (b, t, v)."""
    x = drop(layers, "decoder", x)
    if "lm_head" in layers:
        return layers["lm_head"](x)
    return embedding_of(layers, "decoder")(x, reverse=True)


def head_outputs(layers, task, hidden, inputs, settings):
    """The outputs of a whole model for a task.

    Args:
        layers: dict with the layers of `make_embeddings`.
        task: name of the task.
        hidden: float (b, t, m), the vectors before the logits.
        inputs: the symbolic inputs, by name.
        settings: settings of the family.

    Returns:
        dict of name -> symbolic output.
    """
    make_logits = functools.partial(logits, layers)
    body = Body(hidden, inputs, embedding_of(layers, "decoder"), make_logits)
    return apply_head(task, body, settings)
