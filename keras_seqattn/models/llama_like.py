"""The common part of LLaMA-like families: pre-norm, rotary positions, gated feed-forward."""

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.mechanisms import Local
from keras_seqattn.models.decoder import DecoderSpec, decoder_model, step_model
from keras_seqattn.models.family import Family
from keras_seqattn.models.rope import read_rotary_positions
from keras_seqattn.weights.rows import WeightRow, dense_rows
from keras_seqattn.weights.table import Table

DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "attention_dropout": 0.0,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": None,
    "original_max_position_embeddings": None,
}


def llama_like(model_type, class_prefix, defaults, fixed, layers=None, block=None, keys=None):
    """A family with LLaMA's layers.

    Args:
        model_type: as in config.json.
        class_prefix: start of the names of its Hugging Face classes.
        defaults, fixed: as in `Family`.
        layers: function from the settings to a sequence of dicts: for each layer, its own arguments
            of `DecoderBlock`. With None, all layers are the same.
        block: other arguments of `DecoderBlock`, for all layers.
        keys: as in `Family`.

    Returns:
        A `Family`.
    """

    def build(settings, task, initializer):
        spec = _spec(settings, task, layers or _equal_layers, block or {})
        return decoder_model(spec, settings, task, initializer)

    return Family(
        model_type=model_type,
        architectures={
            "causal_lm": f"{class_prefix}ForCausalLM",
            "embedding": f"{class_prefix}Model",
            "sequence_classification": f"{class_prefix}ForSequenceClassification",
        },
        defaults=defaults,
        fixed=fixed,
        build=build,
        table=TABLE,
        step=step_model,
        check=check_rotary_heads,
        shapes=SHAPES,
        extent=ROTARY_EXTENT + ((ROLLING_EXTENT,) if "rolling_cache" in defaults else ()),
        keys=keys or {},
        unsaved=("rolling_cache",),
    )


def _equal_layers(settings):
    return ({},) * settings["num_hidden_layers"]


def window_layer(settings, window):
    """The arguments of `DecoderBlock` for a layer that attends to W keys, with the query's own key.

    Args:
        settings: dict with rolling_cache: True decodes with a state of W - 1 keys, False with a
            growing cache. Both give the same results.
        window: int W, or None for a layer without a window.

    Returns:
        dict.

    Raises:
        ConfigError: the window is too short to roll.
    """
    if window is None or not settings["rolling_cache"]:
        return {"window": window and (window - 1, 0)}
    if window < 2:
        raise ConfigError("rolling_cache needs a sliding_window of 2 or more.")
    return {"attention": Local(window - 1)}


def read_heads(settings):
    """The numbers of heads and their size, with the names of `DecoderBlock`.

    Raises:
        ConfigError: they contradict each other.
    """
    heads, width = settings["num_attention_heads"], settings["hidden_size"]
    groups = settings["num_key_value_heads"] or heads
    head_dim = settings["head_dim"] or width // heads
    if heads % groups or (settings["head_dim"] is None and width % heads) or head_dim % 2:
        raise ConfigError(
            f"num_key_value_heads={groups} must divide num_attention_heads={heads}, which must "
            f"divide hidden_size={width} unless head_dim is given; head_dim={head_dim} must be "
            "even."
        )
    return {"num_heads": heads, "num_key_value_heads": groups, "head_dim": head_dim}


def check_rotary_heads(settings):
    """For `Family.check`: the heads and the rotary positions must fit together."""
    read_rotary_positions({**settings, **read_heads(settings)})


def _spec(settings, task, layers, block):
    heads, own = read_heads(settings), tuple(layers(settings))
    streams = all("attention" in layer for layer in own)
    return DecoderSpec(
        vocabulary_size=settings["vocab_size"],
        hidden_dim=settings["hidden_size"],
        layers=own,
        tied=task != "causal_lm" or settings["tie_word_embeddings"],
        block={
            **heads,
            "intermediate_dim": settings["intermediate_size"],
            "activation": settings["hidden_act"],
            "gated": True,
            "use_bias": settings["attention_bias"],
            "use_feed_forward_bias": settings["mlp_bias"],
            "norm": "rms_norm",
            "layer_norm_epsilon": settings["rms_norm_eps"],
            "normalize_first": True,
            "positions": read_rotary_positions({**settings, **heads}, unbounded=streams),
            "attention_dropout": settings["attention_dropout"],
            **block,
        },
    )


def _dense(checkpoint, variable):
    return dense_rows(f"model.layers.{{i}}.{checkpoint}", f"layers_{{i}}/{variable}")


def _norm(checkpoint, variable):
    return WeightRow(f"model.layers.{{i}}.{checkpoint}.weight", f"layers_{{i}}/{variable}/scale")


TABLE = Table(
    body=(
        WeightRow("model.embed_tokens.weight", "token_embedding/embeddings"),
        _norm("input_layernorm", "attention_norm"),
        *_dense("self_attn.q_proj", "attention/query"),
        *_dense("self_attn.k_proj", "attention/key"),
        *_dense("self_attn.v_proj", "attention/value"),
        *_dense("self_attn.o_proj", "attention/output_dense"),
        _norm("self_attn.q_norm", "attention/query_norm"),
        _norm("self_attn.k_norm", "attention/key_norm"),
        WeightRow("model.layers.{i}.self_attn.rotary_emb.inv_freq", None),
        _norm("post_attention_layernorm", "feed_forward_norm"),
        *_dense("mlp.gate_proj", "feed_forward/gate"),
        *_dense("mlp.up_proj", "feed_forward/up"),
        *_dense("mlp.down_proj", "feed_forward/down"),
        WeightRow("model.norm.weight", "norm/scale"),
    ),
    head=(
        WeightRow("lm_head.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
        WeightRow("lm_head.weight", None),
        WeightRow("score.weight", "score/kernel", "o i -> i o"),
    ),
    prefix="model.",
)

ATTENTION_SHAPES = {
    "model.embed_tokens.weight": ("vocab_size", "hidden_size"),
    "model.layers.{i}.self_attn.q_proj.weight": (
        "num_attention_heads * head_dim",
        "hidden_size",
    ),
    "model.layers.{i}.self_attn.k_proj.weight": (
        "num_key_value_heads * head_dim",
        "hidden_size",
    ),
}
SHAPES = {
    **ATTENTION_SHAPES,
    "model.layers.{i}.mlp.gate_proj.weight": ("intermediate_size", "hidden_size"),
    "model.layers.{i}.mlp.down_proj.weight": ("hidden_size", "intermediate_size"),
}
# The sizes of the tables of rotary positions and of the state of a window.
ROTARY_EXTENT = ("max_position_embeddings * head_dim",)
ROLLING_EXTENT = (
    "2 * rolling_cache * num_hidden_layers * sliding_window * num_key_value_heads * head_dim"
)
