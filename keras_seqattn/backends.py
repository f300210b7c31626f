"""Which backend Keras starts with in a program, and how it starts quietly."""

import importlib
import importlib.util
import json
import os
from pathlib import Path

from keras_seqattn.errors import ConfigError

_BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend():
    """Set KERAS_BACKEND to an installed backend, if it is not set. Call it before importing Keras.

    The backend in the configuration file of Keras comes first, then TensorFlow, JAX and PyTorch.

    Raises:
        ConfigError: no backend is installed.
    """
    if os.environ.get("KERAS_BACKEND"):
        return
    for name in (_configured_backend(), *_BACKENDS):
        if name and importlib.util.find_spec(name):
            os.environ["KERAS_BACKEND"] = name
            return
    raise ConfigError(
        "Keras has no backend here: pip install tensorflow (or tensorflow-cpu, jax, torch)"
    )


def start_keras():
    """Import Keras with an installed backend, without the messages that libraries then write."""
    choose_backend()
    # TensorFlow's libraries write directly to the file descriptor while they are loaded.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        importlib.import_module("keras")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _configured_backend():
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        return json.loads((home / "keras.json").read_text()).get("backend")
    except (OSError, ValueError, AttributeError):
        return None
