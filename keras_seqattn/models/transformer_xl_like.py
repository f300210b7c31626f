"""The common part of Transformer-XLs: segments with a memory, relative positions."""

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.transformer_xl import TransformerXLAttention
from keras_seqattn.models.decoder import DecoderSpec
from keras_seqattn.models.values import FLAG, OPTIONAL_SIZE, RATE, SIZE, Activation, Text, Whole
from keras_seqattn.weights.rows import WeightRow, dense_rows, layer_norm_rows
from keras_seqattn.weights.table import Table

KEYS = {
    "d_head": OPTIONAL_SIZE,
    "d_inner": SIZE,
    "n_layer": SIZE,
    "n_head": SIZE,
    "mem_len": SIZE,
    "clamp_len": Whole(-1),
    "same_length": FLAG,
    "attn_type": Text(),
    "pre_lnorm": FLAG,
    "dropatt": RATE,
    "ff_activation": Activation(),
}
KERAS_NAMES = {
    "intermediate_dim": ("d_inner",),
    "num_layers": ("n_layer",),
    "num_heads": ("n_head",),
    "head_dim": ("d_head",),
    "memory_length": ("mem_len",),
    "activation": ("ff_activation",),
    "normalize_first": ("pre_lnorm",),
}


def equal_steps(settings):
    """For `Family.equal_steps`: steps are equal while the memory holds every earlier token.

    With `same_length`, queries of the full pass see only that far, so steps are always equal.
    """
    return None if settings.get("same_length") else settings["mem_len"] + 1


def check_width(settings):
    """For `Family.check`: the width must be even and must fit the heads."""
    width, heads, head_dim = (settings[key] for key in ("d_model", "n_head", "d_head"))
    if width % 2 or (head_dim is None and width % heads):
        raise ConfigError(
            f"d_model={width} must be even, and a multiple of n_head={heads} unless d_head is "
            "given."
        )


def read_shape(settings):
    """The number of heads and their size, with the names of `DecoderBlock`."""
    width, heads, head_dim = (settings[key] for key in ("d_model", "n_head", "d_head"))
    return {"num_heads": heads, "head_dim": head_dim or max(1, width // heads)}


def transformer_xl_spec(settings, task, initializer, activation="relu", embedding_scale=None):
    """The decoder of a Transformer-XL.

    Args:
        settings: dict with the keys of `DEFAULTS`.
        task: "causal_lm" or "embedding".
        initializer: function that makes a kernel initializer.
        activation: activation of the feed-forward.
        embedding_scale: factor of the token vectors.

    Returns:
        A `DecoderSpec`.
    """
    width, shape = settings["d_model"], read_shape(settings)
    mixer = {
        **shape,
        "memory_length": settings["mem_len"],
        "same_length": settings["same_length"],
        "clamp_distance": settings["clamp_len"] if settings["clamp_len"] > 0 else None,
        "dropout": settings["dropatt"],
        "position_dropout": settings["dropout"],
    }
    return DecoderSpec(
        vocabulary_size=settings["vocab_size"],
        hidden_dim=width,
        layers=tuple(
            {"mixer": TransformerXLAttention(**mixer, kernel_initializer=initializer())}
            for _ in range(settings["n_layer"])
        ),
        block={
            **shape,
            "intermediate_dim": settings["d_inner"],
            "activation": activation,
            "norm": "layer_norm",
            "layer_norm_epsilon": settings["layer_norm_epsilon"],
            "normalize_first": settings["pre_lnorm"],
            "dropout": settings["dropout"],
            "activation_dropout": settings["dropout"],
        },
        tied=task != "causal_lm" or settings["tie_word_embeddings"],
        embedding_scale=embedding_scale,
        final_norm=False,
        output_bias=True,
        dropout=settings["dropout"],
    )


def _layer(checkpoint):
    return f"transformer.layer.{{i}}.{checkpoint}"


# The names are those of XLNet, because transformers keeps these layers in its XLNet code.
TABLE = Table(
    body=(
        WeightRow("transformer.word_embedding.weight", "token_embedding/embeddings"),
        WeightRow(_layer("rel_attn.q"), "layers_{i}/mixer/query/kernel"),
        WeightRow(_layer("rel_attn.k"), "layers_{i}/mixer/key/kernel"),
        WeightRow(_layer("rel_attn.v"), "layers_{i}/mixer/value/kernel"),
        WeightRow(_layer("rel_attn.r"), "layers_{i}/mixer/distance/kernel"),
        WeightRow(_layer("rel_attn.o"), "layers_{i}/mixer/output_dense/kernel", "m h d -> h d m"),
        WeightRow(_layer("rel_attn.r_w_bias"), "layers_{i}/mixer/content_bias"),
        WeightRow(_layer("rel_attn.r_r_bias"), "layers_{i}/mixer/distance_bias"),
        *layer_norm_rows(_layer("rel_attn.layer_norm"), "layers_{i}/attention_norm"),
        *dense_rows(_layer("ff.layer_1"), "layers_{i}/feed_forward/up"),
        *dense_rows(_layer("ff.layer_2"), "layers_{i}/feed_forward/down"),
        *layer_norm_rows(_layer("ff.layer_norm"), "layers_{i}/feed_forward_norm"),
    ),
    head=(
        WeightRow("lm_loss.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
        WeightRow("lm_loss.weight", None),
        WeightRow("lm_loss.bias", "output_bias/bias"),
    ),
    prefix="transformer.",
)

_HEAD_DIM = ("d_head", lambda settings: read_shape(settings)["head_dim"])
SHAPES = {
    "transformer.word_embedding.weight": ("vocab_size", "d_model"),
    _layer("rel_attn.q"): ("d_model", "n_head", _HEAD_DIM),
    _layer("ff.layer_1.weight"): ("d_inner", "d_model"),
    _layer("ff.layer_2.weight"): ("d_model", "d_inner"),
}
MEMORY_EXTENT = ("n_layer * mem_len * d_model", "n_head * mem_len")
