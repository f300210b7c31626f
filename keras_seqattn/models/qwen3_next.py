"""Qwen3-Next with dense feed-forwards.

Most layers have the gated delta rule (https://arxiv.org/abs/2412.06464). The others have attention
with an output gate.
"""

import dataclasses

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.gated_delta import GatedDelta
from keras_seqattn.models.config import check_layer_types
from keras_seqattn.models.decoder import DecoderSpec, decoder_model, step_model
from keras_seqattn.models.family import Family
from keras_seqattn.models.llama_like import ROTARY_EXTENT, SHAPES, TABLE, read_heads
from keras_seqattn.models.rope import read_rotary_positions
from keras_seqattn.models.values import LAYER_NUMBERS, SIZE, Whole
from keras_seqattn.weights.rows import WeightRow, dense_rows

DEFAULTS = {
    "vocab_size": 151936,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    # The layers with attention: every n-th layer, or the kind of each layer.
    "full_attention_interval": 4,
    "layer_types": None,
    # The layers with experts; such layers are not implemented.
    "num_experts": 512,
    "decoder_sparse_step": 1,
    "mlp_only_layers": None,
    "partial_rotary_factor": 0.25,
    "rope_parameters": None,
    "rope_scaling": None,
    "rope_theta": None,
    "original_max_position_embeddings": None,
}
_KEYS = "linear_num_key_heads * linear_key_head_dim"
_VALUES = "linear_num_value_heads * linear_value_head_dim"


def _build(settings, task, initializer):
    _check_experts(settings)
    heads = read_heads(settings)
    spec = DecoderSpec(
        vocabulary_size=settings["vocab_size"],
        hidden_dim=settings["hidden_size"],
        layers=tuple(_layers(settings, initializer)),
        tied=task != "causal_lm" or settings["tie_word_embeddings"],
        block={
            **heads,
            "intermediate_dim": settings["intermediate_size"],
            "activation": settings["hidden_act"],
            "gated": True,
            "use_bias": settings["attention_bias"],
            "use_feed_forward_bias": False,
            "norm": "zero_centered_rms_norm",
            "layer_norm_epsilon": settings["rms_norm_eps"],
            "normalize_first": True,
            "positions": read_rotary_positions(
                {**settings, **heads}, fraction=settings["partial_rotary_factor"]
            ),
            "query_norm": "zero_centered_rms_norm",
            "key_norm": "zero_centered_rms_norm",
            "output_gate": True,
            "attention_dropout": settings["attention_dropout"],
        },
    )
    return decoder_model(spec, settings, task, initializer)


def _check(settings):
    heads = read_heads(settings)
    read_rotary_positions({**settings, **heads}, fraction=settings["partial_rotary_factor"])
    keys, values = settings["linear_num_key_heads"], settings["linear_num_value_heads"]
    if values % keys:
        raise ConfigError(
            f"linear_num_key_heads={keys} must divide linear_num_value_heads={values}."
        )


def _check_experts(settings):
    count, dense = settings["num_hidden_layers"], settings["mlp_only_layers"] or ()
    step, experts = settings["decoder_sparse_step"], settings["num_experts"]
    sparse = [i for i in range(count) if experts and i not in dense and (i + 1) % step == 0]
    if sparse:
        raise ConfigError(
            f"qwen3_next: layers {', '.join(map(str, sparse))} have experts, which are not "
            "implemented; list every layer in mlp_only_layers for dense feed-forwards."
        )


def _layers(settings, initializer):
    """The own arguments of each block."""
    for kind in _kinds(settings):
        mixer = None
        if kind == "linear_attention":
            mixer = GatedDelta(
                settings["linear_num_value_heads"],
                settings["linear_key_head_dim"],
                num_key_heads=settings["linear_num_key_heads"],
                value_dim=settings["linear_value_head_dim"],
                kernel_size=settings["linear_conv_kernel_dim"],
                layer_norm_epsilon=settings["rms_norm_eps"],
                kernel_initializer=initializer(),
            )
        yield {"mixer": mixer}


def _kinds(settings):
    count, kinds = settings["num_hidden_layers"], settings["layer_types"]
    names = ("linear_attention", "full_attention")
    if kinds is None:
        interval = settings["full_attention_interval"]
        return [names[(index + 1) % interval == 0] for index in range(count)]
    check_layer_types("qwen3_next", kinds, names, count)
    return kinds


def _row(checkpoint, variable, axes=None):
    checkpoint, variable = f"linear_attn.{checkpoint}", f"mixer/{variable}"
    return WeightRow(f"model.layers.{{i}}.{checkpoint}", f"layers_{{i}}/{variable}", axes)


def _dense(name):
    return dense_rows(f"model.layers.{{i}}.linear_attn.{name}", f"layers_{{i}}/mixer/{name}")


FAMILY = Family(
    model_type="qwen3_next",
    architectures={
        "causal_lm": "Qwen3NextForCausalLM",
        "embedding": "Qwen3NextModel",
        "sequence_classification": "Qwen3NextForSequenceClassification",
    },
    defaults=DEFAULTS,
    fixed={},
    build=_build,
    step=step_model,
    check=_check,
    shapes=SHAPES
    | {
        # Includes the output gate.
        "model.layers.{i}.self_attn.q_proj.weight": (
            "2 * num_attention_heads * head_dim",
            "hidden_size",
        ),
        "model.layers.{i}.linear_attn.in_proj_qkvz.weight": (
            f"2 * {_KEYS} + 2 * {_VALUES}",
            "hidden_size",
        ),
        "model.layers.{i}.linear_attn.conv1d.weight": (
            f"2 * {_KEYS} + {_VALUES}",
            "1",
            "linear_conv_kernel_dim",
        ),
        "model.layers.{i}.linear_attn.out_proj.weight": ("hidden_size", _VALUES),
        "model.layers.{i}.linear_attn.A_log": ("linear_num_value_heads",),
        "model.layers.{i}.linear_attn.norm.weight": ("linear_value_head_dim",),
    },
    extent=ROTARY_EXTENT,
    keys={
        "linear_num_key_heads": SIZE,
        "linear_num_value_heads": SIZE,
        "linear_key_head_dim": SIZE,
        "linear_value_head_dim": SIZE,
        "linear_conv_kernel_dim": SIZE,
        "full_attention_interval": SIZE,
        "num_experts": Whole(0),
        "decoder_sparse_step": SIZE,
        "mlp_only_layers": LAYER_NUMBERS,
    },
    table=dataclasses.replace(
        TABLE,
        body=(
            *TABLE.body,
            *_dense("in_proj_qkvz"),
            *_dense("in_proj_ba"),
            _row("conv1d.weight", "conv/kernel", "c () k -> k c"),
            _row("A_log", "time_steps/A_log"),
            _row("dt_bias", "time_steps/dt_bias"),
            _row("norm.weight", "norm/scale"),
            *_dense("out_proj"),
        ),
    ),
)
