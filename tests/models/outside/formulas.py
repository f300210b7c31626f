"""What the families of this folder compute, in float64 by their definitions, and their weights."""

import json
import math

import numpy as np
import safetensors.numpy

V = 97


def norm(x, weights, name):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def dense(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def gelu(x):
    return x / 2 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def attend(q, k, v, mask):
    """Heads float (b, h, t, d); mask bool (b, 1, t, s)."""
    scores = np.where(mask, q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]), -np.inf)
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    out = scores / scores.sum(-1, keepdims=True) @ v
    return out.swapaxes(1, 2).reshape(out.shape[0], out.shape[2], -1)


def heads_of(x, count):
    return x.reshape(*x.shape[:2], count, -1).swapaxes(1, 2)


def causal_mask(length):
    return np.tril(np.ones((length, length), bool))[None, None]


def parallel_logits(weights, ids, mask):
    """`x + attention(n) + feed_forward(n)`, n = norm(x)."""
    places = np.maximum(mask.cumsum(1) - 1, 0)
    x = weights["wte.weight"][ids] + weights["wpe.weight"][places]
    seen = causal_mask(ids.shape[1]) & (mask[:, None, None] > 0)
    # A row of padding sees nothing, and what it gives is not compared.
    seen |= np.eye(ids.shape[1], dtype=bool)
    for layer in ("h.0", "h.1"):
        n = norm(x, weights, f"{layer}.ln")
        fused = dense(n, weights, f"{layer}.qkv").reshape(*ids.shape, 4, 3, 6)
        q, k, v = (fused[:, :, :, part].swapaxes(1, 2) for part in range(3))
        fed = gelu(dense(n, weights, f"{layer}.up"))
        x = x + dense(attend(q, k, v, seen), weights, f"{layer}.out")
        x = x + dense(fed, weights, f"{layer}.down")
    return norm(x, weights, "ln_f") @ weights["wte.weight"].T


def sinusoids(length, width):
    angles = np.outer(np.arange(length), 10000.0 ** (-np.arange(0, width, 2) / width))
    return np.concatenate([np.sin(angles), np.cos(angles)], 1)


def speech_logits(weights, features, mask, targets):
    """The Transformer, post-norm, over projected frames."""

    def attention(x, context, name, seen):
        parts = zip((x, context, context), ("q_proj", "k_proj", "v_proj"), strict=True)
        q, k, v = (heads_of(dense(part, weights, f"{name}.{n}"), 4) for part, n in parts)
        return dense(attend(q, k, v, seen), weights, f"{name}.out_proj")

    def layer(x, name, context=None):
        seen = causal_mask(x.shape[1]) if context is not None else mask[:, None, None] > 0
        x = x + attention(x, x, f"{name}.self_attn", seen)
        x = norm(x, weights, f"{name}.self_attn_layer_norm")
        if context is not None:
            crossed = attention(x, context, f"{name}.encoder_attn", mask[:, None, None] > 0)
            x = norm(x + crossed, weights, f"{name}.encoder_attn_layer_norm")
        fed = dense(gelu(dense(x, weights, f"{name}.fc1")), weights, f"{name}.fc2")
        return norm(x + fed, weights, f"{name}.final_layer_norm")

    x = dense(features, weights, "model.encoder.project") + sinusoids(features.shape[1], 24)
    for index in range(2):
        x = layer(x, f"model.encoder.layers.{index}")
    table = weights["model.decoder.embed_tokens.weight"]
    y = table[targets] + sinusoids(targets.shape[1], 24)
    for index in range(3):
        y = layer(y, f"model.decoder.layers.{index}", x)
    return y @ table.T


def _dense_shapes(name, outputs, inputs):
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm_shapes(name):
    return {f"{name}.weight": (24,), f"{name}.bias": (24,)}


PARALLEL = {"wte.weight": (V, 24), "wpe.weight": (64, 24), **_norm_shapes("ln_f")}
for _layer in ("h.0", "h.1"):
    PARALLEL |= _norm_shapes(f"{_layer}.ln") | _dense_shapes(f"{_layer}.qkv", 72, 24)
    PARALLEL |= _dense_shapes(f"{_layer}.out", 24, 24) | _dense_shapes(f"{_layer}.up", 96, 24)
    PARALLEL |= _dense_shapes(f"{_layer}.down", 24, 96)
SPEECH = {"model.decoder.embed_tokens.weight": (V, 24)} | _dense_shapes(
    "model.encoder.project", 24, 11
)
for _side, _count, _width in (("encoder", 2, 29), ("decoder", 3, 31)):
    for _index in range(_count):
        _layer = f"model.{_side}.layers.{_index}"
        for _name in ("self_attn", *(("encoder_attn",) if _side == "decoder" else ())):
            for _part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                SPEECH |= _dense_shapes(f"{_layer}.{_name}.{_part}", 24, 24)
            SPEECH |= _norm_shapes(f"{_layer}.{_name}_layer_norm")
        SPEECH |= _dense_shapes(f"{_layer}.fc1", _width, 24)
        SPEECH |= _dense_shapes(f"{_layer}.fc2", 24, _width)
        SPEECH |= _norm_shapes(f"{_layer}.final_layer_norm")


def store(directory, declared, task, shapes):
    """Write a checkpoint of random numbers, float32; the same in float64."""
    random = np.random.default_rng(4)
    weights = {}
    for name, shape in shapes.items():
        noise = random.standard_normal(shape)
        scale = 1.5 / np.sqrt(shape[-1]) if len(shape) > 1 else 0.3
        is_gain = name.endswith("weight") and len(shape) == 1
        weights[name] = (noise * scale + is_gain).astype("float32")
    safetensors.numpy.save_file(weights, directory / "model.safetensors")
    config = {**declared.defaults, "model_type": declared.model_type}
    config |= {"architectures": [declared.architectures[task]], "layer_norm_eps": 1e-5}
    (directory / "config.json").write_text(json.dumps(config))
    return {name: value.astype("float64") for name, value in weights.items()}
