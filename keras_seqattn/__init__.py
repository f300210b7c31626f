"""Keras 3 sequence models, checkpoints and fused ONNX bundles; names are imported on first use."""

import importlib

__version__ = "0.1.0"

_MODULES = (
    "layers",
    "ops",
    "models",
    "weights",
    "ports",
    "onnx",
    "runtime",
    "generation",
    "training",
    "analysis",
)
_OBJECTS = {"generate": "keras_seqattn.generation.api"}

__all__ = ["__version__", *_MODULES, *_OBJECTS]


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _OBJECTS:
        return getattr(importlib.import_module(_OBJECTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
