"""Puts the errors of other libraries into one line."""

import itertools
import re

from keras_seqattn.onnx.backend_calls import backend_call

# Keras writes some of its messages in bold.
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
# The start of a note that says where in a model an error was raised. Libraries add other notes.
PLACE = "while tracing"
# After this text, Keras lists its arguments.
_REST = ("Arguments received by", "Full input shape")
_LONGEST = 400
# Messages of backends that were given a symbolic tensor.
_OF_A_BACKEND = (
    "KerasTensor is symbolic",
    "KerasTensor cannot be used",
    "not Symbol",
    "symbol.Symbol'",
)
_OTHER_ROUTE = 'or export it on the TensorFlow backend with route="tf2onnx"'
# The tracer's stand-ins for sizes that are known only at run time.
_STAND_IN = re.compile(r"\b\d{12,}\b")
_UNKNOWN = re.compile(r"[(\[,] ?\?(?=[,)\]])")


def without_stand_ins(text):
    """A message about shapes with "?" for each size that is known only at run time."""
    found = _STAND_IN.sub("?", text)
    if found == text and not _UNKNOWN.search(text):
        return text
    return f"{found} (? is a size that is known only at run time)"


def untraceable(error):
    """Why a model cannot be traced, in one line, with the places: the message of an exception, or
    that a layer calls its backend.
    """
    used = backend_call(error)
    text = f"{_text(error)} {_text(error.__cause__)}"
    if used is None and not any(sign in text for sign in _OF_A_BACKEND):
        return reason(error)
    call, name = used or (None, None)
    better = f"keras.ops.{name}" if name else "keras.ops"
    instead = f" instead of {call}" if call else ", which can be traced"
    said = f"it computes with its backend; write it with {better}{instead}, {_OTHER_ROUTE}"
    return "; ".join([said, *_places(error)])


def _text(error):
    try:
        return str(error)
    except Exception:  # the class of an error may be anybody's
        return type(error).__name__


def _places(error):
    return [note for note in getattr(error, "__notes__", []) if note.startswith(PLACE)]


def reason(error):
    """The message of an exception in one line, with the places in its notes."""
    lines = (line.strip() for line in _STYLE.sub("", _text(error)).splitlines())
    said = itertools.takewhile(lambda line: not line.startswith(_REST), filter(_says, lines))
    text = " ".join(said) or type(error).__name__
    if isinstance(error, LookupError | AttributeError | ArithmeticError | AssertionError):
        text = f"{type(error).__name__}: {text}"
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + " ..."
    return "; ".join([text, *_places(error)])


def _says(line):
    # The first line of Keras only names the layer whose call failed.
    return line and not line.startswith("Exception encountered when calling")
