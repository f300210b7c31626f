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
# Keras's names of settings -> the ones that configurations use; `build` takes either.
KERAS_NAMES = {
    "vocabulary_size": ("vocab_size",),
    "hidden_dim": ("hidden_size",),
    "intermediate_dim": ("intermediate_size",),
    "num_layers": ("num_hidden_layers",),
    "num_heads": ("num_attention_heads",),
    "max_sequence_length": ("max_position_embeddings",),
    "activation": ("hidden_act",),
    "layer_norm_epsilon": ("layer_norm_eps", "rms_norm_eps"),
    "dropout": ("hidden_dropout_prob", "attention_dropout"),
}
# Read for every family: labels of classifiers, the dropout before them, and the spread of new
# weights.
_COMMON = {"num_labels": 2, "classifier_dropout": None, "initializer_range": 0.02}
_COMMON_FIXED = {
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
    "is_encoder_decoder": (None, False),
}
# Change nothing in a model's maths, but belong in a configuration that is built by hand.
_NEUTRAL = {"id2label", "label2id", "pad_token_id", "bos_token_id", "eos_token_id"}
# Keys that may be null, with an example of what they are otherwise.
_NULLABLE = {
    "num_key_value_heads": 1,
    "head_dim": 1,
    "sliding_window": 1,
    "original_max_position_embeddings": 1,
    "classifier_dropout": 0.0,
    "rope_theta": 0.0,
    "rope_parameters": {},
    "rope_scaling": {},
    "layer_types": [],
}
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
    for key, accepted in {**_COMMON_FIXED, **family.fixed}.items():
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
    if "hidden_act" in settings:
        settings["hidden_act"] = _activation(family, settings["hidden_act"])
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
        names = [name for name in KERAS_NAMES.get(key, (key,)) if name in known]
        if not names:
            close = difflib.get_close_matches(key, [*known, *KERAS_NAMES], 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{family.model_type}: unknown setting {key!r}.{hint}")
        if names[0] in named:
            raise ConfigError(f"{family.model_type}: {names[0]!r} is given twice.")
        named[names[0]] = value
    return named


def read_rotary_positions(settings):
    """The rotary positions of a decoder.

    Args:
        settings: dict with head_dim, max_position_embeddings, and `rope_parameters` or the older
            `rope_theta` and `rope_scaling`.

    Returns:
        A `RotaryPositions`.

    Raises:
        ConfigError: a scaling that is unknown, incomplete, or has values that are not implemented.
    """
    scaling = rope_parameters(settings)
    base = scaling.pop("rope_theta")
    if not _is_number(base) or base <= 0:
        raise ConfigError(f"rope_theta must be a number above 0, not {base!r}.")
    _check_rope(scaling, settings["head_dim"])
    return RotaryPositions(
        settings["head_dim"],
        base=base,
        max_position=settings["max_position_embeddings"],
        scaling=scaling,
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


def _activation(family, name):
    if name not in ACTIVATIONS:
        raise ConfigError(
            f"{family.model_type}: hidden_act={name!r} is not implemented; implemented: "
            f"{', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def _check_type(family, key, value, default):
    """A value must be of the kind of its default, or of the example for keys that may be null."""
    if value is None and key in _NULLABLE:
        return
    default = _NULLABLE.get(key, default)
    if isinstance(default, bool):
        valid, kind = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        least = 0 if key == "max_window_layers" else 1
        valid, kind = type(value) is int and value >= least, f"a whole number, {least} or more"
    elif isinstance(default, float):
        valid, kind = _is_number(value) and value >= 0, "a number, 0 or more"
    else:
        valid, kind = isinstance(value, type(default)), f"of type {type(default).__name__}"
    if not valid:
        raise ConfigError(f"{family.model_type}: {key} must be {kind}, not {value!r}.")


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
