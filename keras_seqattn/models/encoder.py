"""The skeleton of bidirectional encoders: embeddings, a stack of blocks, normalisations."""

import math

import keras
from keras import ops

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.blocks import EncoderBlock
from keras_seqattn.layers.embedding import Scale, TokenEmbedding
from keras_seqattn.layers.normalization import normalization
from keras_seqattn.layers.positions import PositionEmbedding
from keras_seqattn.models.functional import symbolic
from keras_seqattn.ops.positions import PositionIds
from keras_seqattn.ports import names
from keras_seqattn.weights.table import Row, dense_rows, layer_norm_rows


@keras.saving.register_keras_serializable(package="keras_seqattn")
class EmbeddingSum(keras.layers.Layer):
    """The sum of a token embedding and others that broadcast to it.

    Call arguments:
        embedding: float (b, t, m).
        others: float (b|1, t, m).

    Returns:
        float (b, t, m).
    """

    def call(self, embedding, *others):
        for other in others:
            embedding = ops.add(embedding, other)
        return embedding

    def compute_output_spec(self, embedding, *others):
        return keras.KerasTensor(embedding.shape, embedding.dtype)


def embed(parts, width, epsilon, dropout):
    """The sum of embeddings, normalised.

    Args:
        parts: list of float (b, t, m), the tokens' first, or (1, t, m).
        width: m.
        epsilon: of the layer normalisation.
        dropout: rate.

    Returns:
        float (b, t, m).
    """
    x = EmbeddingSum(name="embeddings_sum")(*parts)
    policy = keras.config.dtype_policy()
    x = normalization("layer_norm", epsilon, width, policy, "embeddings_norm")(x)
    return keras.layers.Dropout(dropout, name="embeddings_dropout")(x) if dropout else x


def encode(x, num_layers, call, attentions=None, **block):
    """A stack of encoder blocks named layers_0, layers_1, ...

    Args:
        x: float (b, t, m).
        num_layers: number of blocks.
        call: dict, what each block is called with beside `x`.
        attentions: None, or a `Mechanism` for each block.
        block: arguments of `EncoderBlock`; initializers as functions that make one.

    Returns:
        float (b, t, m).
    """
    initializer = block.pop("kernel_initializer")
    for index in range(num_layers):
        layer = EncoderBlock(
            **block,
            attention=None if attentions is None else attentions[index],
            kernel_initializer=initializer(),
            name=f"layers_{index}",
        )
        x = layer(x, **call)
    return x


def build_encoder(settings, task, initializer, heads, extras=(), offset=None, attentions=None):
    """(inputs, outputs) of an encoder with BERT's settings, as `Family.build` returns them.

    Args:
        settings, task, initializer: as `Family.build` gets them. Of some families only:
            rescale_embeddings, whether those of tokens are multiplied by sqrt(m); use_bias, whether
            queries, keys and values have biases.
        heads: as `heads.BERT_HEADS`.
        extras: the `Port` of each further input int (b, t), which each block is called with.
        offset: rows of the position table before that of the first token; positions then leave out
            padding. None: there are none, and padding counts.
        attentions: None, or a `Mechanism` for each block.
    """
    inputs = symbolic(
        names.tokens(settings["vocab_size"]),
        names.mask(),
        names.token_types(settings["type_vocab_size"]),
        *extras,
    )
    width, num_heads = settings["hidden_size"], settings["num_attention_heads"]
    embedding = TokenEmbedding(
        settings["vocab_size"],
        width,
        tied=task != "masked_lm" or settings["tie_word_embeddings"],
        embeddings_initializer=initializer(),
        name="token_embedding",
    )
    hidden = encode(
        _embed_inputs(inputs, embedding, settings, initializer, offset),
        settings["num_hidden_layers"],
        {name: inputs[name] for name in ("attention_mask", *(port.name for port in extras))},
        attentions,
        num_heads=num_heads,
        head_dim=width // num_heads,
        intermediate_dim=settings["intermediate_size"],
        activation=settings["hidden_act"],
        use_bias=settings.get("use_bias", True),
        use_output_bias=True,
        use_feed_forward_bias=True,
        layer_norm_epsilon=settings["layer_norm_eps"],
        dropout=settings["hidden_dropout_prob"],
        attention_dropout=settings["attention_probs_dropout_prob"],
        kernel_initializer=initializer,
    )
    return inputs, heads[task](hidden, embedding, settings)


def _embed_inputs(inputs, embedding, settings, initializer, offset):
    width, ids = settings["hidden_size"], inputs["input_ids"]
    types = TokenEmbedding(
        settings["type_vocab_size"],
        width,
        embeddings_initializer=initializer(),
        name="token_type_embedding",
    )
    positions = PositionEmbedding(
        settings["max_position_embeddings"] - (offset or 0),
        width,
        offset=offset or 0,
        embeddings_initializer=initializer(),
        name="position_embedding",
    )
    places = None
    if offset is not None:
        places = PositionIds(name="position_ids")(inputs["attention_mask"], ids)
    tokens = embedding(ids)
    if settings.get("rescale_embeddings"):
        tokens = Scale(math.sqrt(width), name="embeddings_scale")(tokens)
    parts = [tokens, positions(ids, position_ids=places), types(inputs["token_type_ids"])]
    return embed(parts, width, settings["layer_norm_eps"], settings["hidden_dropout_prob"])


def adapt_pooler(config, names):
    """The configuration, as `Family.adapt`: checkpoints of some tasks come without the pooler."""
    if any(name.endswith(("pooler.dense.weight", "pooler.weight")) for name in names):
        return config
    return {**config, "add_pooling_layer": False}


def check_heads(settings):
    """As `Family.check`: the heads divide the width."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    if width % heads:
        raise ConfigError(f"hidden_size={width} is not a multiple of num_attention_heads={heads}.")


def encoder_shapes(prefix):
    """The shapes of what `build_encoder` builds, as of `Family.shapes`.

    Args:
        prefix: what the names start with.
    """
    embeddings, layer = f"{prefix}.embeddings", f"{prefix}.encoder.layer.{{i}}"
    return {
        f"{embeddings}.word_embeddings.weight": ("vocab_size", "hidden_size"),
        f"{embeddings}.position_embeddings.weight": ("max_position_embeddings", "hidden_size"),
        f"{embeddings}.token_type_embeddings.weight": ("type_vocab_size", "hidden_size"),
        f"{layer}.attention.self.query.weight": ("hidden_size", "hidden_size"),
        f"{layer}.intermediate.dense.weight": ("intermediate_size", "hidden_size"),
        f"{layer}.output.dense.weight": ("hidden_size", "intermediate_size"),
    }


def encoder_rows(prefix):
    """The rows of what `build_encoder` builds, without heads, as BERT's checkpoints name them.

    Args:
        prefix: what the names start with.

    Returns:
        tuple of `Row`.
    """
    embeddings, layer = f"{prefix}.embeddings", f"{prefix}.encoder.layer.{{i}}"
    return (
        Row(f"{embeddings}.word_embeddings.weight", "token_embedding/embeddings"),
        Row(f"{embeddings}.position_embeddings.weight", "position_embedding/embeddings"),
        Row(f"{embeddings}.token_type_embeddings.weight", "token_type_embedding/embeddings"),
        Row(f"{embeddings}.position_ids", None),
        *layer_norm_rows(f"{embeddings}.LayerNorm", "embeddings_norm"),
        *dense_rows(f"{layer}.attention.self.query", "layers_{i}/attention/query"),
        *dense_rows(f"{layer}.attention.self.key", "layers_{i}/attention/key"),
        *dense_rows(f"{layer}.attention.self.value", "layers_{i}/attention/value"),
        *dense_rows(f"{layer}.attention.output.dense", "layers_{i}/attention/output_dense"),
        *layer_norm_rows(f"{layer}.attention.output.LayerNorm", "layers_{i}/attention_norm"),
        *dense_rows(f"{layer}.intermediate.dense", "layers_{i}/feed_forward/up"),
        *dense_rows(f"{layer}.output.dense", "layers_{i}/feed_forward/down"),
        *layer_norm_rows(f"{layer}.output.LayerNorm", "layers_{i}/feed_forward_norm"),
    )
