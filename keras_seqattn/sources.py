"""Models for the command line: of a checkpoint, or of a file that Keras saved."""

import importlib
import importlib.util
import os
import sys

import keras

from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, InputError
from keras_seqattn.onnx.refusals import reason

_OF_KERAS = (".keras", ".h5", ".hdf5")


def load_source(path, task=None, code=None):
    """The model of a path.

    Args:
        path: a file that ends in .keras, .h5 or .hdf5, or what `models.load` takes.
        task: as for `models.load`. A file of Keras has none.
        code: None, or the name of a module or of a .py file that registers the layers of the model
            (`keras.saving.register_keras_serializable`). It is imported first.

    Raises:
        CheckpointError: the file is missing or damaged, or its layers are unknown.
        InputError: the code cannot be imported, or `task` was given for a file of Keras.
    """
    if code is not None:
        _import(code)
    if not is_of_keras(path):
        return models.load(path, task=task)
    if task is not None:
        raise InputError(f"{path} is a Keras model, which has no tasks; leave out the task")
    if not os.path.isfile(path):
        raise CheckpointError(f"there is no file {path}")
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras and h5py raise many kinds of errors
        raise CheckpointError(
            f"Keras cannot load {path}: {reason(error)} (--import names code with custom layers)"
        ) from error


def is_of_keras(path):
    """Whether a path is that of a file that Keras saved, which has no tasks."""
    return path.lower().endswith(_OF_KERAS)


def _import(code):
    try:
        if not code.endswith(".py"):
            sys.path.insert(0, os.getcwd())
            importlib.import_module(code)
            return
        name = os.path.splitext(os.path.basename(code))[0]
        spec = importlib.util.spec_from_file_location(name, code)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except Exception as error:  # the code may raise any error
        raise InputError(f"cannot import {code}: {reason(error)}") from error
