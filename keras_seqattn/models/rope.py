"""Reading the rotary positions of a configuration, with the old or the new names of keys."""

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.positions import RotaryPositions
from keras_seqattn.models.keys import ROPE_KEYS

_NEEDED = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}
_OPTIONAL = {
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


def read_rotary_positions(settings, unbounded=False, fraction=None):
    """The rotary positions of a decoder.

    Args:
        settings: dict with head_dim, max_position_embeddings, and `rope_parameters` or the older
            `rope_theta` and `rope_scaling`.
        unbounded: as in `RotaryPositions`.
        fraction: part of the channels that is rotated, if there is no partial_rotary_factor; None
            for families that rotate all channels.

    Returns:
        A `RotaryPositions`.

    Raises:
        ConfigError: the scaling is unknown or incomplete, or its values are not implemented.
    """
    scaling, head_dim = rope_parameters(settings), settings["head_dim"]
    _check_kinds(scaling)
    base = scaling.pop("rope_theta")
    rotated = scaling.pop("partial_rotary_factor", None)
    if fraction is None and rotated not in (None, 1):
        raise ConfigError("partial_rotary_factor other than 1 is not implemented for this family.")
    fraction = 1.0 if fraction is None else rotated or fraction
    channels = fraction * head_dim
    if channels % 2 or not channels:
        raise ConfigError(
            f"partial_rotary_factor={fraction!r} must rotate an even number of the "
            f"head_dim={head_dim} channels."
        )
    _check_complete(scaling, int(channels))
    return RotaryPositions(
        head_dim,
        base=base,
        fraction=fraction,
        max_position=settings["max_position_embeddings"],
        scaling=scaling,
        unbounded=unbounded,
    )


def rope_parameters(config):
    """The rotary settings as one dict, like `rope_parameters` of transformers 5."""
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


def _check_kinds(scaling):
    kind = scaling["rope_type"]
    if not isinstance(kind, str) or kind not in _NEEDED:
        raise ConfigError(
            f"rope_type={shown(kind)} is not implemented; implemented: {', '.join(_NEEDED)}."
        )
    known = {"rope_type", "rope_theta", "partial_rotary_factor"}
    known |= {*_NEEDED[kind], *_OPTIONAL.get(kind, ())}
    unknown = sorted(set(scaling) - known)
    if unknown:
        raise ConfigError(
            f"rope_type={kind!r} with {', '.join(map(_plain, unknown[:8]))} is not implemented."
        )
    for key, value in scaling.items():
        if key != "rope_type" and value is not None and not ROPE_KEYS[key].accepts(value):
            raise ConfigError(
                f"rope_type={kind!r}: {key} must be {ROPE_KEYS[key]}, not {shown(value)}."
            )


def _check_complete(scaling, channels):
    kind = scaling["rope_type"]
    for key in _NEEDED[kind]:
        value, is_list = scaling.get(key), key in ("short_factor", "long_factor")
        if is_list and (value is None or len(value) != channels // 2):
            raise ConfigError(
                f"rope_type={kind!r} needs {key}, a list of {channels // 2} numbers, not "
                f"{shown(value)}."
            )
        if value is None:
            raise ConfigError(f"rope_type={kind!r} needs the number {key}.")
    if kind == "llama3" and scaling["low_freq_factor"] >= scaling["high_freq_factor"]:
        raise ConfigError(
            f"rope_type='llama3': low_freq_factor={scaling['low_freq_factor']} must be below "
            f"high_freq_factor={scaling['high_freq_factor']}."
        )
    if kind == "dynamic" and channels < 4:
        raise ConfigError(
            f"rope_type='dynamic' needs 4 or more channels that are rotated, not {channels}."
        )


def _plain(key):
    return shown(key).strip("'")
