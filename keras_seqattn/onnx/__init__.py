"""ONNX export: traces a Keras model, lowers it for a target, writes it, and verifies the file.

Names are imported on first use, because the tables of targets and precisions need no Keras.
"""

import importlib

_NAMES = {
    "Measure": "measures",
    "Precision": "precisions",
    "Report": "report",
    "Target": "targets",
    "build_graph": "graph",
    "build_graphs": "graph",
    "compare_routes": "routes",
    "export": "bundle",
    "lowers": "lower.registry",
    "register_precision": "precisions",
    "register_target": "targets",
    "verify": "verification",
    "write_onnx": "bundle",
}

__all__ = list(_NAMES)


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
