"""Reading config.json: defaults, checks, and refusing what is not implemented.

A key is read by the family (its `defaults`), accepted for some values only (`fixed`: keys that
change the
maths), or ignored: the files carry many keys for training, tokenizers and bookkeeping.
"""

import difflib
import math

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.positions import RotaryPositions

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "silu": "silu",
    "swish": "silu",
    "relu": "relu",
    "tanh": "tanh",
}
# Keras's names of settings -> the ones that configurations use; `build` takes either. A name that
# is itself a family's key means that key alone, any other all that the family has.
KERAS_NAMES = {
    "vocabulary_size": ("vocab_size",),
    "hidden_dim": ("hidden_size", "d_model"),
    "embedding_dim": ("embedding_size",),
    "intermediate_dim": (
        "intermediate_size",
        "encoder_ffn_dim",
        "decoder_ffn_dim",
        "d_ff",
        "d_inner",
    ),
    "num_layers": ("num_hidden_layers", "encoder_layers", "decoder_layers", "n_layer"),
    "num_heads": (
        "num_attention_heads",
        "encoder_attention_heads",
        "decoder_attention_heads",
        "n_head",
    ),
    "head_dim": ("d_kv", "d_head"),
    "memory_length": ("mem_len",),
    "max_sequence_length": (
        "max_position_embeddings",
        "max_encoder_position_embeddings",
        "max_decoder_position_embeddings",
    ),
    "activation": ("hidden_act", "activation_function", "feed_forward_proj", "ff_activation"),
    "layer_norm_epsilon": ("layer_norm_eps", "rms_norm_eps", "norm_eps"),
    "normalize_first": ("normalize_before", "pre_lnorm"),
    "dropout": ("hidden_dropout_prob", "attention_dropout", "dropout_rate"),
}
# Read for every family: labels of classifiers, the dropout before them, and the spread of new
# weights.
_COMMON = {"num_labels": 2, "classifier_dropout": None, "initializer_range": 0.02}
_COMMON_FIXED = {
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
}
# Change nothing in a model's maths, but belong in a configuration that is built by hand.
_NEUTRAL = {"id2label", "label2id", "is_encoder_decoder"}
_NEUTRAL |= {f"{name}_token_id" for name in ("pad", "bos", "eos", "decoder_start")}
_NEUTRAL |= {f"forced_{name}_token_id" for name in ("bos", "eos")}
# Keys that may be null, with an example of what they are otherwise.
_NULLABLE = {
    "num_key_value_heads": 1,
    "head_dim": 1,
    "d_head": 1,
    "sliding_window": 1,
    "original_max_position_embeddings": 1,
    "classifier_dropout": 0.0,
    "rope_theta": 0.0,
    "rope_parameters": {},
    "rope_scaling": {},
    "layer_types": [],
    "full_attn_idxs": [],
    "mlp_only_layers": [],
    "init_std": 0.0,
    "decoder_vocab_size": 1,
    "num_decoder_layers": 1,
    "dense_act_fn": "",
    "is_gated_act": True,
    "scale_decoder_outputs": True,
}
# The least values of whole numbers, where that is not 1.
_LEAST = {"max_window_layers": 0, "num_experts": 0, "clamp_len": -1, "random_features_seed": 0}
# Keys with one value for all layers, or a list with one for each.
_PER_LAYER = {"attention_window"}
_ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_OPTIONAL_ROPE_KEYS = {
    "dynamic": ("original_max_position_embeddings",),
    "yarn": (
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
    "llama3": ("original_max_position_embeddings",),
    "longrope": ("original_max_position_embeddings", "attention_factor", "factor"),
}


def read_settings(config, family):
    """The settings of a model: the configuration with defaults filled in, checked.

    Args:
        config: dict as in config.json.
        family: a `Family`.

    Returns:
        dict with every key of the family's defaults.

    Raises:
        ConfigError: a value has the wrong type, or is not implemented.
    """
    for key, accepted in _fixed(family).items():
        if key in config and config[key] not in accepted:
            raise ConfigError(
                f"{family.model_type}: {key}={config[key]!r} is not implemented; "
                f"implemented: {', '.join(repr(value) for value in accepted)}."
            )
    defaults = {**_COMMON, **family.defaults}
    settings = {}
    for key, default in defaults.items():
        settings[key] = config.get(key, default)
        _check_type(family, key, settings[key], default)
    labels = config.get("id2label")
    if labels:
        _check_type(family, "id2label", labels, {})
        settings["num_labels"] = len(labels)
    for key in ("hidden_act", "activation_function", "ff_activation"):
        if key in settings:
            settings[key] = _activation(family, key, settings[key])
    return settings


def complete_keys(config, family):
    """A hand-written configuration with Keras's names replaced, and unknown keys refused.

    Args:
        config: dict with names of either vocabulary.
        family: a `Family`.

    Returns:
        dict with the names of config.json.

    Raises:
        ConfigError: a key is unknown, or given under both names.
    """
    known = {*_COMMON, *family.defaults, *family.fixed, *_NEUTRAL}
    named = {}
    for key, value in config.items():
        names = (key,) if key in known else KERAS_NAMES.get(key, ())
        names = [name for name in names if name in known]
        if not names:
            close = difflib.get_close_matches(key, [*known, *KERAS_NAMES], 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{family.model_type}: unknown setting {key!r}.{hint}")
        for name in names:
            if name in named:
                raise ConfigError(f"{family.model_type}: {name!r} is given twice.")
            named[name] = value
    return named


def check_layer_types(model_type, kinds, known, count):
    """Refuse kinds of layers that are unknown, or that are not one for each layer.

    Args:
        model_type: str, for the message.
        kinds: list of str, from config.json.
        known: tuple of str, those that the family has.
        count: number of layers.

    Raises:
        ConfigError: says which.
    """
    unknown = sorted(set(kinds) - set(known))
    if unknown or len(kinds) != count:
        raise ConfigError(
            f"{model_type}: layer_types must name {count} layers, each {' or '.join(known)}; it "
            f"names {len(kinds)}{', with ' + ', '.join(unknown) if unknown else ''}."
        )


def read_rotary_positions(settings, unbounded=False, fraction=None):
    """The rotary positions of a decoder.

    Args:
        settings: dict with head_dim, max_position_embeddings, and `rope_parameters` or the older
            `rope_theta` and `rope_scaling`.
        unbounded: as in `RotaryPositions`.
        fraction: part of the channels that is rotated unless a partial_rotary_factor says another;
            None for families that rotate all.

    Returns:
        A `RotaryPositions`.

    Raises:
        ConfigError: a scaling that is unknown, incomplete, or has values that are not implemented.
    """
    scaling = rope_parameters(settings)
    base = scaling.pop("rope_theta")
    if not _is_number(base) or base <= 0:
        raise ConfigError(f"rope_theta must be a number above 0, not {base!r}.")
    if fraction is not None:
        fraction = scaling.pop("partial_rotary_factor", None) or fraction
        rotated = fraction * settings["head_dim"]
        if not 0 < fraction <= 1 or rotated % 2:
            raise ConfigError(
                f"partial_rotary_factor={fraction!r} must rotate an even number of the "
                f"head_dim={settings['head_dim']} channels."
            )
    _check_rope(scaling, settings["head_dim"])
    return RotaryPositions(
        settings["head_dim"],
        base=base,
        fraction=fraction or 1.0,
        max_position=settings["max_position_embeddings"],
        scaling=scaling,
        unbounded=unbounded,
    )


def rope_parameters(config):
    """The rotary settings as one dict, as transformers 5 writes them in `rope_parameters`."""
    rope = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    kind = rope.pop("type", None)
    rope.setdefault("rope_type", kind or "default")
    if rope.get("rope_theta") is None:
        rope["rope_theta"] = config.get("rope_theta") or 10000.0
    if rope["rope_type"] in ("yarn", "llama3", "longrope"):
        outside = config.get("original_max_position_embeddings")
        rope["original_max_position_embeddings"] = outside or rope.get(
            "original_max_position_embeddings", config.get("max_position_embeddings")
        )
    return rope


def _check_rope(scaling, head_dim):
    kind = scaling["rope_type"]
    if kind not in _ROPE_KEYS:
        raise ConfigError(
            f"rope_type={kind!r} is not implemented; implemented: {', '.join(_ROPE_KEYS)}."
        )
    if scaling.pop("partial_rotary_factor", None) not in (None, 1, 1.0):
        raise ConfigError("partial_rotary_factor other than 1 is not implemented for this family.")
    known = {"rope_type", *_ROPE_KEYS[kind], *_OPTIONAL_ROPE_KEYS.get(kind, ())}
    unknown = sorted(set(scaling) - known)
    if unknown:
        raise ConfigError(f"rope_type={kind!r} with {', '.join(unknown)} is not implemented.")
    for key in _ROPE_KEYS[kind]:
        value, sizes = scaling.get(key), key in ("short_factor", "long_factor")
        if sizes and (not isinstance(value, list) or len(value) != head_dim // 2):
            raise ConfigError(
                f"rope_type={kind!r} needs {key}, a list of {head_dim // 2} numbers, not {value!r}."
            )
        if not sizes and not _is_number(value):
            raise ConfigError(f"rope_type={kind!r} needs the number {key}, not {value!r}.")


def _fixed(family):
    """Key -> the values that are implemented, for keys that are not read."""
    both = (None, True) if family.encoder else (None, False)
    return {**_COMMON_FIXED, "is_encoder_decoder": both, **family.fixed}


def _activation(family, key, name):
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"{family.model_type}: {key}={name!r} is not implemented; implemented: "
            f"{', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def _check_type(family, key, value, default):
    """A value must be of the kind of its default, or of the example for keys that may be null."""
    if key.endswith("_token_id"):
        _check_token_id(family, key, value)
        return
    if value is None and key in _NULLABLE:
        return
    if isinstance(value, list) and key in _PER_LAYER:
        return
    default = _NULLABLE.get(key, default)
    if isinstance(default, bool):
        valid, kind = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        least = _LEAST.get(key, 1)
        valid, kind = type(value) is int and value >= least, f"a whole number, {least} or more"
    elif isinstance(default, float):
        valid, kind = _is_number(value) and value >= 0, "a number, 0 or more"
    else:
        valid, kind = isinstance(value, type(default)), f"of type {type(default).__name__}"
    if not valid:
        raise ConfigError(f"{family.model_type}: {key} must be {kind}, not {value!r}.")


def _check_token_id(family, key, value):
    ids = value if isinstance(value, list) else [value]
    if value is not None and not all(type(token) is int and token >= 0 for token in ids):
        raise ConfigError(
            f"{family.model_type}: {key} must be a token's number, a list of them, or null, "
            f"not {value!r}."
        )


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
