"""Reads the JSON files of checkpoints and bundles, whoever wrote them."""

import json
import os
import stat

from keras_seqattn.errors import BundleError, first_line

# The largest of them are tokenizers, of up to some 35 MB.
LARGEST_FILE = 64 << 20


def parse_object(content, name, error=BundleError, kind=dict):
    """What a JSON file holds.

    Args:
        content: bytes or str of the file.
        name: its name, for messages.
        error: class of what is raised.
        kind: dict for a JSON object, or list for an array.

    Raises:
        error: the file is no JSON, holds something else, or text that cannot be written again.
    """
    content = content.encode() if isinstance(content, str) else bytes(content)
    try:
        value = json.loads(content)
        if b"\\u" in content:
            # JSON can spell half a surrogate pair, which no text can hold.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise error(f"{name} is not valid JSON: its values are nested too deep") from None
    except ValueError as reason:
        raise error(f"{name} is not valid JSON: {first_line(reason)}") from None
    if not isinstance(value, kind):
        wanted = "object" if kind is dict else "array"
        raise error(f"{name} must hold a JSON {wanted}, not {type(value).__name__}")
    return value


def read_object(path, error=BundleError):
    """What the file `path` holds, a dict; `error` unless it is a file with a JSON object."""
    return parse_object(read_small_file(path, error), path, error)


def read_small_file(path, error=BundleError):
    """The bytes of a regular file of at most 64 MiB; `error` unless it is one."""
    try:
        found = os.stat(path)
        # Opening a pipe would wait for somebody to write into it.
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
