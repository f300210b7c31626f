"""Fetches one file and keeps it only if it is the expected one."""

import contextlib
import shutil
import urllib.request
from pathlib import Path

from keras_seqattn.errors import DataError
from keras_seqattn.files import FileTarget, digest

__all__ = ["digest", "download", "is_kept", "keep"]


def download(url, path, sha256):
    """Put what is at an address into the cache, complete or not at all.

    Args:
        url: str.
        path: pathlib.Path to write.
        sha256: str, hexadecimal, of the file.

    Raises:
        DataError: it is another file than expected, or cannot be written.
        OSError: it cannot be reached.
    """
    with urllib.request.urlopen(url, timeout=30) as source, keep(path, sha256) as part:
        with part.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


@contextlib.contextmanager
def keep(path, sha256):
    """Yield a path to fetch a file to, which is moved to its place if it is the expected one.

    Args:
        path: pathlib.Path, its place.
        sha256: str, hexadecimal.

    Raises:
        DataError: its digest is another, or it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    place = FileTarget(path, DataError)
    with place.staged() as folder:
        part = Path(folder) / place.name
        yield part
        if digest(part) != sha256:
            raise DataError("its sha256 is not the expected one")


def is_kept(path, sha256):
    """Whether the expected file is in the cache."""
    try:
        return path.is_file() and digest(path) == sha256
    except OSError:
        return False
