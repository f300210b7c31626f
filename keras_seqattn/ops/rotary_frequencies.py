"""Rotary frequencies and their scalings for longer contexts, in NumPy float64."""

import math
from functools import lru_cache

import numpy as np

# If no table has a row for each position, a position is written with this number of digits in this
# base.
DIGITS, DIGIT_BASE = 3, 256

STATIC_TYPES = ("default", "linear", "yarn", "llama3")
DYNAMIC_TYPES = ("dynamic", "longrope")


def base_frequencies(rotary_dim, base):
    """`base ** (-2 i / r)`, float64 (r / 2,)."""
    return base ** (-np.arange(0, rotary_dim, 2, dtype="float64") / rotary_dim)


def linear_frequencies(rotary_dim, base, max_position, scaling):
    """Position interpolation (https://arxiv.org/abs/2306.15595)."""
    return base_frequencies(rotary_dim, base) / scaling["factor"], 1.0


def llama3_frequencies(rotary_dim, base, max_position, scaling):
    """Llama 3.1: low frequencies are divided by the factor, high ones stay, with a ramp between."""
    frequencies = base_frequencies(rotary_dim, base)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    original = scaling.get("original_max_position_embeddings", max_position)
    rotations = original * frequencies / (2 * math.pi)
    kept = np.clip((rotations - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling["factor"]), 1.0


def yarn_frequencies(rotary_dim, base, max_position, scaling):
    """YaRN (https://arxiv.org/abs/2309.00071)."""
    original = scaling.get("original_max_position_embeddings", max_position)
    factor = scaling.get("factor") or max_position / original

    def channel(rotations):
        return rotary_dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = channel(scaling.get("beta_fast") or 32), channel(scaling.get("beta_slow") or 1)
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim - 1)
    # A ramp of width 0 is a step.
    width = high - low if high != low else 0.001
    interpolated = np.clip((np.arange(rotary_dim // 2) - low) / width, 0.0, 1.0)
    frequencies = base_frequencies(rotary_dim, base)
    frequencies = frequencies * (1.0 - interpolated + interpolated / factor)
    return frequencies, _yarn_attention_factor(factor, scaling)


def _yarn_attention_factor(factor, scaling):
    if scaling.get("attention_factor") is not None:
        return float(scaling["attention_factor"])

    def magnitude(scale):
        return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0

    if scaling.get("mscale") and scaling.get("mscale_all_dim"):
        return magnitude(scaling["mscale"]) / magnitude(scaling["mscale_all_dim"])
    return magnitude(1.0)


def longrope_frequencies(rotary_dim, base, max_position, scaling):
    """LongRoPE (https://arxiv.org/abs/2402.13753): (short, long, attention factor)."""
    original = scaling.get("original_max_position_embeddings", max_position)
    frequencies = base_frequencies(rotary_dim, base)
    short = frequencies / np.asarray(scaling["short_factor"], "float64")
    long = frequencies / np.asarray(scaling["long_factor"], "float64")
    attention_factor = scaling.get("attention_factor")
    if attention_factor is None:
        factor = scaling.get("factor") or max_position / original
        attention_factor = 1.0
        if factor > 1.0:
            attention_factor = math.sqrt(1.0 + math.log(factor) / math.log(original))
    return short, long, attention_factor


_FREQUENCIES = {
    "default": lambda rotary_dim, base, max_position, scaling: (
        base_frequencies(rotary_dim, base),
        1.0,
    ),
    "linear": linear_frequencies,
    "llama3": llama3_frequencies,
    "yarn": yarn_frequencies,
}


def static_frequencies(rotary_dim, base, max_position, scaling):
    """Frequencies and attention factor of a scaling that does not depend on the length.

    Args:
        rotary_dim: number of rotated channels r.
        base: base of the geometric series.
        max_position: the longest sequence of the model.
        scaling: dict with the names of checkpoints (`rope_type`, `factor`, ...).

    Returns:
        NumPy float64 (r / 2,), and the factor of cos and sin, a float.
    """
    return _FREQUENCIES[scaling["rope_type"]](rotary_dim, base, max_position, scaling)


@lru_cache(maxsize=16)
def rotary_tables(rotary_dim, base, max_position, scaling_items):
    """The cos and sin tables of a static scaling; equal arguments share the same arrays.

    Args:
        rotary_dim, base, max_position: as in `static_frequencies`.
        scaling_items: the scaling as a tuple of (name, value) pairs.

    Returns:
        Two read-only NumPy float32 (max_position, r / 2).
    """
    frequencies, attention_factor = static_frequencies(
        rotary_dim, base, max_position, dict(scaling_items)
    )
    return _tables(np.arange(max_position), frequencies, attention_factor)


@lru_cache(maxsize=16)
def digit_tables(rotary_dim, base, max_position, scaling_items):
    """The cos and sin of the angles of each digit of a position, the lowest digit first.

    Args:
        rotary_dim, base, max_position, scaling_items: as in `rotary_tables`.

    Returns:
        For each digit a pair as from `rotary_tables`, NumPy float32 (DIGIT_BASE, r / 2). The pair
        of the lowest digit includes the attention factor.
    """
    frequencies, attention_factor = static_frequencies(
        rotary_dim, base, max_position, dict(scaling_items)
    )
    places = np.arange(DIGIT_BASE)
    return tuple(
        _tables(places * DIGIT_BASE**digit, frequencies, 1.0 if digit else attention_factor)
        for digit in range(DIGITS)
    )


def _tables(positions, frequencies, factor):
    angles = np.outer(positions.astype("float64"), frequencies)
    tables = [(f(angles) * factor).astype("float32") for f in (np.cos, np.sin)]
    for table in tables:
        table.flags.writeable = False
    return tuple(tables)
