"""The common part of encoders with the settings of BERT: settings, encoder, heads, weight rows."""

import math

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.positions import PositionEmbedding
from keras_seqattn.models.embedders import TokenEmbedder
from keras_seqattn.models.encoder import EncoderSpec
from keras_seqattn.weights.rows import WeightRow, dense_rows, layer_norm_rows

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
    # Not a key of transformers. It says whether an embedding model has the pooler, because some
    # checkpoints have none.
    "add_pooling_layer": True,
}
FIXED = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
}


def bert_spec(settings, task, initializer, attentions=None, extras=(), offset=None):
    """The encoder for the settings of BERT.

    Args:
        settings, task, initializer: as in `Family.build`. Only some families have the settings
            rescale_embeddings (multiply the token embeddings by sqrt(m)) and use_bias (whether
            queries, keys and values have biases).
        attentions: None, or a `Mechanism` for each block.
        extras: as in `EncoderSpec`.
        offset: number of rows of the position table before the row of the first token; positions
            then count only real tokens. With None there are no such rows, and positions count
            padding, too.

    Returns:
        An `EncoderSpec`.
    """
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    dropout, epsilon = settings["hidden_dropout_prob"], settings["layer_norm_eps"]

    def positions(name):
        rows, first = settings["max_position_embeddings"], offset or 0
        return PositionEmbedding(
            rows - first, width, offset=first, embeddings_initializer=initializer(), name=name
        )

    return EncoderSpec(
        TokenEmbedder(
            settings["vocab_size"],
            width,
            positions,
            settings["type_vocab_size"],
            scale=math.sqrt(width) if settings.get("rescale_embeddings") else None,
            norm=("layer_norm", epsilon),
            dropout=dropout,
            tied=task != "masked_lm" or settings["tie_word_embeddings"],
        ),
        layers=tuple(
            {"attention": None if attentions is None else attentions[index]}
            for index in range(settings["num_hidden_layers"])
        ),
        block={
            "num_heads": heads,
            "head_dim": width // heads,
            "intermediate_dim": settings["intermediate_size"],
            "activation": settings["hidden_act"],
            "use_bias": settings.get("use_bias", True),
            "use_output_bias": True,
            "use_feed_forward_bias": True,
            "layer_norm_epsilon": epsilon,
            "dropout": dropout,
            "attention_dropout": settings["attention_probs_dropout_prob"],
        },
        extras=extras,
        skips_padding=offset is not None,
    )


def adapt_pooler(config, names):
    """For `Family.adapt`: note in the configuration whether the checkpoint has a pooler."""
    if any(name.endswith(("pooler.dense.weight", "pooler.weight")) for name in names):
        return config
    return {**config, "add_pooling_layer": False}


def check_heads(settings):
    """For `Family.check`: the number of heads must divide the width."""
    width, heads = settings["hidden_size"], settings["num_attention_heads"]
    if width % heads:
        raise ConfigError(f"hidden_size={width} is not a multiple of num_attention_heads={heads}.")


def encoder_shapes(prefix):
    """For `Family.shapes`: the shapes of the encoder of `bert_spec`.

    Args:
        prefix: start of the names.
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
    """The rows of the encoder of `bert_spec`, without heads, with the names of BERT's checkpoints.

    Args:
        prefix: start of the names.

    Returns:
        tuple of `WeightRow`.
    """
    embeddings, layer = f"{prefix}.embeddings", f"{prefix}.encoder.layer.{{i}}"
    return (
        WeightRow(f"{embeddings}.word_embeddings.weight", "token_embedding/embeddings"),
        WeightRow(f"{embeddings}.position_embeddings.weight", "position_embedding/embeddings"),
        WeightRow(f"{embeddings}.token_type_embeddings.weight", "token_type_embedding/embeddings"),
        WeightRow(f"{embeddings}.position_ids", None),
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


def bert_heads_rows(prefix):
    """The rows of the heads, with the names of BERT's checkpoints.

    Args:
        prefix: start of the names of the pooler.

    Returns:
        tuple of `WeightRow`.
    """
    return (
        *dense_rows(f"{prefix}.pooler.dense", "pooler"),
        *dense_rows("classifier", "classifier"),
        *dense_rows("qa_outputs", "qa_outputs"),
        *dense_rows("cls.predictions.transform.dense", "masked_lm_dense"),
        *layer_norm_rows("cls.predictions.transform.LayerNorm", "masked_lm_norm"),
        WeightRow("cls.predictions.bias", "masked_lm_bias/bias"),
        WeightRow(
            "cls.predictions.decoder.weight", "token_embedding/reverse_embeddings", "v m -> m v"
        ),
        WeightRow("cls.predictions.decoder.bias", "masked_lm_untied_bias/bias"),
        WeightRow("cls.predictions.decoder.weight", None),
        WeightRow("cls.predictions.decoder.bias", None),
        WeightRow("cls.predictions.bias", None),
        WeightRow("cls.seq_relationship.weight", None),
        WeightRow("cls.seq_relationship.bias", None),
    )
