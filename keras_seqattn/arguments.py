"""Checks of arguments that many public functions share. Each raises InputError with the name."""

import math
import numbers
import os
import pathlib
import reprlib

from keras_seqattn.errors import InputError
from keras_seqattn.memory import check_memory

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
_REPR.maxlevel = 3


def shown(value):
    """str, any `value` as one short line for an error message."""
    try:
        text = _REPR.repr(value)
    except Exception:  # a repr may raise any error; an int with 5,000 digits does so
        text = f"a value of type {type(value).__name__}"
    return " ".join(text[:200].split())


def shown_path(path):
    """str, a path for an error message; it is shortened if it is longer than any real path."""
    text = str(path)
    return text if len(text) <= 400 else f"{text[:200]}...{text[-100:]}"


def integer(value, name, least=0, most=2**63 - 1):
    """`value` as an int from `least` to `most`; a bool is not accepted."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or not least <= value <= most:
        upper = "" if most == 2**63 - 1 else f" and at most {most}"
        raise InputError(
            f"{name}={shown(value)} is not valid: it must be an integer of at least {least}{upper}"
        )
    return int(value)


def number(value, name, least=-math.inf, most=math.inf):
    """`value` as a float, a finite number from `least` to `most`."""
    try:
        is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
        found = float(value) if is_real else math.nan
    except OverflowError:
        found = math.inf
    if not math.isfinite(found) or not least <= found <= most:
        limits = [f"of at least {least}"] if least > -math.inf else []
        limits += [f"of at most {most}"] if most < math.inf else []
        wanted = " and ".join(limits) or "that is finite"
        raise InputError(f"{name}={shown(value)} is not valid: it must be a number {wanted}")
    return found


def flag(value, name):
    """`value`, which must be True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}={shown(value)} is not valid: it must be True or False")
    return value


def choice(value, name, options):
    """`value`, which must be one of the texts in `options`."""
    if not isinstance(value, str) or value not in options:
        raise InputError(
            f"{name}={shown(value)} is not valid: it must be one of {', '.join(options)}"
        )
    return value


def text(value, name="the text"):
    """`value`, which must be a str that can be written as UTF-8."""
    if not isinstance(value, str):
        raise InputError(f"{name} must be a str, not {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds half a character (a lone surrogate) at position {error.start}: "
            "decode the text with errors='replace'"
        ) from None
    return value


def texts(value, name="texts"):
    """`value`, a text or a list of texts that is not empty, as a list of str."""
    if isinstance(value, str):
        return [text(value, name)]
    # In PyTorch tensors, size is a method; they hold no text.
    size = getattr(value, "size", None)
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist") and isinstance(size, int):
        # An array may repeat one text very often without using memory for it.
        check_memory(100 * size, f"{name} of {size} elements", "give fewer")
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(f"{name} must be a str or a list of at least one str, not {shown(value)}")
    return [text(item, f"{name}[{i}]") for i, item in enumerate(value)]


def path(value, name="path"):
    """`value`, a str or os.PathLike that the system can look up, as a pathlib.Path."""
    if not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} must be a str or a path, not {shown(value)}")
    try:
        found = pathlib.Path(value)
        found.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, TypeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{name}={shown(value)} cannot be looked up: {reason}") from None
    return found
