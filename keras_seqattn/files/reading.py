"""Reads a folder that another process may replace at the same time."""

import os
import time

from keras_seqattn.errors import SeqAttnError

_TRIES = 20


def read_settled(path, read):
    """Read a folder file by file; start again if a new folder replaced it.

    Args:
        path: the folder.
        read: function without arguments that reads it.

    Returns:
        The result of `read`; all of it comes from the same folder.

    Raises:
        The errors of `read`.
    """
    for tries_left in reversed(range(_TRIES)):
        before = _identity(path)
        try:
            result = read()
        except (SeqAttnError, OSError):
            if not tries_left or _identity(path) == before:
                raise
        else:
            if not tries_left or _identity(path) == before:
                return result
        time.sleep(0.01)


def _identity(path):
    """A value that identifies a folder, even if its inode number is used again later."""
    try:
        found = os.stat(path)
    except (OSError, ValueError, TypeError):
        return None
    return found.st_dev, found.st_ino, found.st_ctime_ns
