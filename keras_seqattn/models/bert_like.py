"""What encoders with BERT's settings share: the settings, the encoder, heads and weight rows."""

from keras_seqattn.errors import ConfigError
from keras_seqattn.weights.table import Row, dense_rows, layer_norm_rows

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
