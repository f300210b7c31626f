"""Reads JSON from strangers: the files of checkpoints and bundles, and headers of weights."""

import json
import math
import os
import stat

from keras_seqattn.errors import BundleError, first_line

# The largest of these files are tokenizers with up to about 40 MB.
LARGEST_FILE = 64 << 20
_MAX_DEPTH = 64


def parse_object(content, name, error=BundleError, kind=dict):
    """The value of a JSON text.

    These are refused, too: numbers beyond float64, the same name twice in an object (readers differ
    in which one they take), halves of surrogate pairs (no file can hold them), and nesting deeper
    than 64. NaN and Infinity are accepted, because Python writes them into configurations. The code
    that uses a number checks whether it is finite.

    Args:
        content: bytes or str.
        name: name of the text, for messages.
        error: class of the error to raise.
        kind: dict for a JSON object, or list for an array.

    Raises:
        error: the text is refused, or it holds another kind of value.
    """
    try:
        text = content if isinstance(content, str) else bytes(content).decode("utf-8")
        value = json.loads(text, object_pairs_hook=_object, parse_float=_float)
        _check_strings_and_depth(value)
    except RecursionError:
        raise error(f"{name} is not valid JSON: it is nested deeper than {_MAX_DEPTH}") from None
    except ValueError as reason:
        raise error(f"{name} is not valid JSON: {first_line(reason)}") from None
    if not isinstance(value, kind):
        wanted = "object" if kind is dict else "array"
        raise error(f"{name} must hold a JSON {wanted}, not {type(value).__name__}")
    return value


def read_object(path, error=BundleError):
    """The dict in the file `path`; raises `error` if it is not a file with a JSON object."""
    return parse_object(read_small_file(path, error), path, error)


def read_small_file(path, error=BundleError):
    """The bytes of a regular file of at most 64 MiB; raises `error` for anything else."""
    try:
        found = os.stat(path)
        # Opening a pipe would wait until somebody writes into it.
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{path} is not a regular file")
        if found.st_size > LARGEST_FILE:
            raise error(f"{path} has {found.st_size} bytes, and at most {LARGEST_FILE} are read")
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as reason:
        if isinstance(reason, error):
            raise
        raise error(f"{path} cannot be read: {first_line(reason)}") from None


def _object(pairs):
    members = dict(pairs)
    if len(members) < len(pairs):
        seen = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the name {twice[:80]!r} appears twice in one object")
    return members


def _float(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _check_strings_and_depth(value):
    level, depth = [value], 0
    while level:
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {_MAX_DEPTH}")
        below = []
        for item in level:
            if isinstance(item, str):
                _check_text(item)
            elif isinstance(item, list):
                below += item
            elif isinstance(item, dict):
                below += item.keys()
                below += item.values()
        level, depth = below, depth + 1


def _check_text(text):
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a string contains half of a surrogate pair") from None
