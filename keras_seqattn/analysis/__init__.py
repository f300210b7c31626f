"""The attention scores of every layer, statistics of them, and plots."""

import importlib

_OBJECTS = {
    "AttentionScores": "scores",
    "attention": "scores",
    "attention_distance": "statistics",
    "attention_entropy": "statistics",
    "plot_alignment": "plots",
    "plot_heads": "plots",
}

__all__ = [*_OBJECTS]


def __getattr__(name):
    if name in _OBJECTS:
        return getattr(importlib.import_module(f"{__name__}.{_OBJECTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
