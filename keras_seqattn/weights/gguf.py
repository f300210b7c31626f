"""GGUF files of the llama architecture, opened as Hugging Face checkpoints."""

import json
import re

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError
from keras_seqattn.weights.checkpoint import Checkpoint
from keras_seqattn.weights.gguf_file import open_gguf_file
from keras_seqattn.weights.gguf_metadata import Metadata
from keras_seqattn.weights.gguf_tokenizer import tokenizer_assets

_TENSORS = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Factors of the rotary frequencies. They become part of the configuration.
_ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
# Metadata of variants of the architecture that the llama family does not compute.
_REFUSED = (
    "attention.sliding_window",
    "expert_count",
    "logit_scale",
    "residual_scale",
    "embedding_scale",
)


def open_gguf(path):
    """Open a GGUF file as a Hugging Face checkpoint; tensors are decoded to float32 one at a time.

    Args:
        path: the file; its architecture must be llama.

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: the file is damaged, or its architecture is not implemented.
    """
    file = open_gguf_file(path)
    architecture = file.metadata.get("general.architecture")
    if architecture != "llama":
        raise CheckpointError(
            f"{path}: the GGUF architecture {shown(architecture)} is not implemented; only 'llama' "
            "is."
        )
    return _checkpoint(file)


def _checkpoint(file):
    names = {
        _hugging_face_name(file.path, name): name
        for name in file.tensors
        if name not in _ROPE_TENSORS
    }
    config = _config(file, names)

    def read(name):
        value = file.read(names[name])
        if ".q_proj." in name:
            return _unpermute(value, config["num_attention_heads"])
        if ".k_proj." in name:
            return _unpermute(value, config["num_key_value_heads"])
        return value

    assets = tokenizer_assets(Metadata(file.path, file.metadata), config["vocab_size"])
    special = {key: value for key, value in config.items() if key.endswith("_token_id")}
    assets["generation_config.json"] = json.dumps(special, indent=2).encode("utf-8")
    shapes = {name: file.tensors[stored].shape for name, stored in names.items()}
    return Checkpoint(file.path, config, assets, shapes, read)


def _hugging_face_name(path, name):
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in _LAYER_TENSORS:
        return f"model.layers.{layer[1]}.{_LAYER_TENSORS[layer[2]]}.{layer[3]}"
    other = re.fullmatch(r"(\w+)\.(weight|bias)", name)
    if other and other[1] in _TENSORS:
        return f"{_TENSORS[other[1]]}.{other[2]}"
    raise CheckpointError(
        f"{path}: tensor {shown(name)} is not part of a plain llama model, so it is not "
        "implemented."
    )


def _config(file, names):
    """The content of config.json, from the metadata and the tensors."""
    values = Metadata(file.path, file.metadata, "llama.")
    for key in _REFUSED:
        if values.get(key):
            raise CheckpointError(
                f"{file.path}: llama.{key}={shown(values.get(key))} is not implemented."
            )
    heads = values.integer("attention.head_count")
    width = values.integer("embedding_length")
    rotated = values.integer("rope.dimension_count", max(1, width // heads))
    head_dim = values.integer("attention.key_length", rotated)
    if "token_embd.weight" not in file.tensors:
        raise CheckpointError(f"{file.path}: lacks the tensor 'token_embd.weight'.")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "hidden_size": width,
        "intermediate_size": values.integer("feed_forward_length"),
        "num_hidden_layers": values.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": values.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": values.integer("context_length"),
        "rms_norm_eps": values.positive_float("attention.layer_norm_rms_epsilon"),
        "attention_bias": "model.layers.0.self_attn.q_proj.bias" in names,
        "mlp_bias": "model.layers.0.mlp.down_proj.bias" in names,
        "tie_word_embeddings": "lm_head.weight" not in names,
        "rope_parameters": _rope_parameters(file, values, head_dim),
        "dtype": "float32",
    }
    return config | _special_tokens(Metadata(file.path, file.metadata), config["vocab_size"])


def _special_tokens(values, count):
    tokens = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
        token = values.token_id(key, count)
        if token is not None:
            tokens[f"{name}_token_id"] = token
    end_of_turn = values.token_id("eot", count)
    if end_of_turn is not None and end_of_turn != tokens.get("eos_token_id"):
        others = [tokens["eos_token_id"]] if "eos_token_id" in tokens else []
        tokens["eos_token_id"] = [*others, end_of_turn]
    return tokens


def _rope_parameters(file, values, head_dim):
    """Rotary settings with Hugging Face names. Frequency factors from a tensor stay exact."""
    rotated = values.integer("rope.dimension_count", head_dim)
    if rotated != head_dim:
        raise CheckpointError(
            f"{file.path}: rotating {rotated} of {head_dim} channels is not implemented for llama."
        )
    base = values.positive_float("rope.freq_base", 10000.0)
    original = values.integer(
        "rope.scaling.original_context_length", values.integer("context_length")
    )
    kind = values.string("rope.scaling.type", "none")
    if "rope_freqs.weight" in file.tensors:
        factors = _read_factors(file, "rope_freqs.weight", head_dim)
        return {"rope_theta": base} | _frequency_factors(factors, base, original)
    if "rope_factors_long.weight" in file.tensors:
        return {
            "rope_type": "longrope",
            "rope_theta": base,
            **{
                f"{name}_factor": _read_factors(
                    file, f"rope_factors_{name}.weight", head_dim
                ).tolist()
                for name in ("long", "short")
            },
            "attention_factor": values.positive_float("rope.scaling.attn_factor", 1.0),
            "original_max_position_embeddings": original,
        }
    if kind == "none":
        return {"rope_type": "default", "rope_theta": base}
    if kind not in ("linear", "yarn"):
        raise CheckpointError(
            f"{file.path}: llama.rope.scaling.type={shown(kind)} is not implemented."
        )
    scaling = {
        "rope_type": kind,
        "rope_theta": base,
        "factor": values.positive_float("rope.scaling.factor"),
    }
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = original
    return scaling


def _read_factors(file, name, head_dim):
    """A factor above 0 for each rotary frequency, float32 (head_dim / 2,)."""
    tensor = file.tensors.get(name)
    if tensor is None or tensor.shape != (head_dim // 2,):
        shape = "missing" if tensor is None else f"of shape {tensor.shape}"
        raise CheckpointError(
            f"{file.path}: the tensor {name!r} must hold {head_dim // 2} factors; it is {shape}."
        )
    factors = file.read(name)
    if not np.isfinite(factors).all() or factors.min() <= 0:
        raise CheckpointError(
            f"{file.path}: the tensor {name!r} holds factors that are not above 0."
        )
    return factors


def _frequency_factors(factors, base, original):
    """The scaling of Llama 3 if the factors match it, else the general LongRoPE."""
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    if np.allclose(_llama3_factors(scaling, base, factors.size), factors, rtol=1e-5):
        return scaling
    return {
        "rope_type": "longrope",
        "long_factor": factors.tolist(),
        "short_factor": factors.tolist(),
        "attention_factor": 1.0,
        "original_max_position_embeddings": original,
    }


def _llama3_factors(scaling, base, size):
    """The factors that llama.cpp stores for Llama 3.1: default frequency / scaled frequency."""
    wavelength = 2 * np.pi * np.float64(base) ** (np.arange(size) / size)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = (scaling["original_max_position_embeddings"] / wavelength - low) / (high - low)
    smooth = np.clip(smooth, 0.0, 1.0)
    return 1.0 / ((1.0 - smooth) / scaling["factor"] + smooth)


def _unpermute(value, num_heads):
    """Undo the reordering of q and k rows in llama.cpp, from half-split to interleaved pairs."""
    pairs = value.reshape(num_heads, -1, 2, *value.shape[1:])  # (h, d/2, 2, ...)
    return pairs.swapaxes(1, 2).reshape(value.shape)
