"""LFM2 (https://arxiv.org/abs/2511.23404): gated short convolutions, attention in some layers."""

from keras_seqattn.layers.short_convolution import ShortConvolution
from keras_seqattn.models.config import check_layer_types
from keras_seqattn.models.decoder import DecoderSpec, decoder_model, step_model
from keras_seqattn.models.family import Family
from keras_seqattn.models.llama_like import (
    ATTENTION_SHAPES,
    ROTARY_EXTENT,
    check_rotary_heads,
    read_heads,
)
from keras_seqattn.models.rope import read_rotary_positions
from keras_seqattn.models.values import FLAG, LAYER_NUMBERS, SIZE, Real
from keras_seqattn.weights.rows import WeightRow, dense_rows
from keras_seqattn.weights.table import Table

DEFAULTS = {
    "vocab_size": 65536,
    "hidden_size": 2560,
    "intermediate_size": 12288,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": None,
    "max_position_embeddings": 128000,
    "norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "conv_bias": False,
    "conv_L_cache": 3,
    # These three and intermediate_size give the width of the feed-forward.
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 256,
    # The layers with attention: their numbers, or the kind of each layer.
    "full_attn_idxs": None,
    "layer_types": None,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
    "original_max_position_embeddings": None,
}
# Old names of keys. In transformers they override the new names.
_RENAMED = {"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size"}


def _build(settings, task, initializer):
    heads = read_heads(settings)
    spec = DecoderSpec(
        vocabulary_size=settings["vocab_size"],
        hidden_dim=settings["hidden_size"],
        layers=tuple(_layers(settings, initializer)),
        tied=task != "causal_lm" or settings["tie_word_embeddings"],
        block={
            **heads,
            "intermediate_dim": _intermediate_dim(settings),
            "activation": "silu",
            "gated": True,
            "use_bias": False,
            "norm": "rms_norm",
            "layer_norm_epsilon": settings["norm_eps"],
            "normalize_first": True,
            "positions": read_rotary_positions({**settings, **heads}),
            "query_norm": "rms_norm",
            "key_norm": "rms_norm",
        },
    )
    return decoder_model(spec, settings, task, initializer)


def _layers(settings, initializer):
    """The own arguments of each block."""
    for kind in _kinds(settings):
        mixer = None
        if kind == "conv":
            mixer = ShortConvolution(
                settings["conv_L_cache"],
                use_bias=settings["conv_bias"],
                kernel_initializer=initializer(),
            )
        yield {"mixer": mixer}


def _kinds(settings):
    count, kinds = settings["num_hidden_layers"], settings["layer_types"]
    if kinds is None:
        chosen = settings["full_attn_idxs"]
        chosen = range(count) if chosen is None else chosen
        return ["full_attention" if index in chosen else "conv" for index in range(count)]
    check_layer_types("lfm2", kinds, ("full_attention", "conv"), count)
    return kinds


def _intermediate_dim(settings):
    width = settings["intermediate_size"]
    if not settings["block_auto_adjust_ff_dim"]:
        return width
    width = int(settings["block_ffn_dim_multiplier"] * int(2 * width / 3))
    multiple = settings["block_multiple_of"]
    return multiple * -(-width // multiple)


def _adapt(config, names):
    old = {key: config[key] for key in _RENAMED if key in config}
    kept = {key: value for key, value in config.items() if key not in old}
    return kept | {_RENAMED[key]: value for key, value in old.items()}


def _dense(checkpoint, variable):
    return dense_rows(f"model.layers.{{i}}.{checkpoint}", f"layers_{{i}}/{variable}")


def _norm(checkpoint, variable):
    return WeightRow(f"model.layers.{{i}}.{checkpoint}.weight", f"layers_{{i}}/{variable}/scale")


_FEED_FORWARD = (
    "intermediate_size, block_ffn_dim_multiplier, block_multiple_of",
    _intermediate_dim,
)

FAMILY = Family(
    model_type="lfm2",
    architectures={"causal_lm": "Lfm2ForCausalLM", "embedding": "Lfm2Model"},
    defaults=DEFAULTS,
    fixed={},
    build=_build,
    adapt=_adapt,
    step=step_model,
    check=check_rotary_heads,
    shapes={
        **ATTENTION_SHAPES,
        "model.layers.{i}.conv.conv.weight": ("hidden_size", "1", "conv_L_cache"),
        "model.layers.{i}.feed_forward.w1.weight": (_FEED_FORWARD, "hidden_size"),
        "model.layers.{i}.feed_forward.w2.weight": ("hidden_size", _FEED_FORWARD),
    },
    extent=ROTARY_EXTENT,
    keys={
        "conv_bias": FLAG,
        "conv_L_cache": SIZE,
        "block_auto_adjust_ff_dim": FLAG,
        "block_ffn_dim_multiplier": Real(0, 1000, open=True),
        "block_multiple_of": SIZE,
        "full_attn_idxs": LAYER_NUMBERS,
    },
    table=Table(
        body=(
            WeightRow("model.embed_tokens.weight", "token_embedding/embeddings"),
            _norm("operator_norm", "attention_norm"),
            *_dense("self_attn.q_proj", "attention/query"),
            *_dense("self_attn.k_proj", "attention/key"),
            *_dense("self_attn.v_proj", "attention/value"),
            *_dense("self_attn.out_proj", "attention/output_dense"),
            _norm("self_attn.q_layernorm", "attention/query_norm"),
            _norm("self_attn.k_layernorm", "attention/key_norm"),
            *_dense("conv.in_proj", "mixer/in_proj"),
            WeightRow(
                "model.layers.{i}.conv.conv.weight", "layers_{i}/mixer/conv/kernel", "m () k -> k m"
            ),
            WeightRow("model.layers.{i}.conv.conv.bias", "layers_{i}/mixer/conv/bias"),
            *_dense("conv.out_proj", "mixer/out_proj"),
            _norm("ffn_norm", "feed_forward_norm"),
            *_dense("feed_forward.w1", "feed_forward/gate"),
            *_dense("feed_forward.w3", "feed_forward/up"),
            *_dense("feed_forward.w2", "feed_forward/down"),
            WeightRow("model.embedding_norm.weight", "norm/scale"),
        ),
        head=(
            WeightRow("lm_head.weight", "token_embedding/reverse_embeddings", "v m -> m v"),
            WeightRow("lm_head.weight", None),
        ),
        prefix="model.",
    ),
)
