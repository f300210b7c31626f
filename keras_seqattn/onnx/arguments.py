"""Checks of the arguments of the public functions of this package, before any work is done."""

import os

import keras
import numpy as np
import onnx_ir as ir

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ExportError, InputError
from keras_seqattn.onnx.targets import get_target


def check_model(model):
    """Raises:
    ExportError: the argument is not a Keras model.
    """
    if not isinstance(model, keras.Model):
        raise ExportError(f"cannot export {shown(model)}; give a keras.Model")


def check_graph(graph):
    """Raises:
    ExportError: the argument is not a graph.
    """
    if not isinstance(graph, ir.Model):
        raise ExportError(f"cannot write {shown(graph)}; give what build_graph returns")


def checked_path(path, name="path"):
    """A path as str.

    Raises:
        ExportError: the value is not a path.
    """
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str) or not text or "\0" in text or not _encodes(text):
        raise ExportError(f"{name} must be the name of a file or folder, not {shown(path)}")
    return text


def check_choice(name, value, choices):
    """Raises:
    ExportError: the value is not one of the choices.
    """
    if not isinstance(value, str) or value not in choices:
        raise ExportError(f"unknown {name} {shown(value)}; choose one of {', '.join(choices)}")


def check_settings(target, verify, lengths, progress):
    """Raises:
    ExportError: the target is unknown, or an argument has another type than documented.
    InputError: the lengths are not valid.
    """
    get_target(target)
    if not isinstance(verify, bool | np.bool_):
        raise ExportError(f"verify must be True or False, not {shown(verify)}")
    check_lengths(lengths)
    check_progress(progress)


def check_progress(progress):
    """Raises:
    ExportError: the argument cannot be called.
    """
    if progress is not None and not callable(progress):
        raise ExportError(f"progress must be a function or None, not {shown(progress)}")


def check_lengths(lengths):
    """Raises:
    InputError: the lengths are neither None nor a list of positive whole numbers.
    """
    if lengths is None:
        return
    listed = isinstance(lengths, list | tuple | range | np.ndarray) and len(lengths)
    if not listed or not all(_is_length(n) for n in lengths):
        raise InputError(
            f"lengths to verify must be a list of whole numbers from 1, not {shown(lengths)}"
        )


def _is_length(n):
    return isinstance(n, int | np.integer) and not isinstance(n, bool) and n >= 1


def _encodes(text):
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True
