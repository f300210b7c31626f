"""Fetches one file and keeps it only if it is the expected one."""

import hashlib
import os
import shutil
import tempfile
import urllib.request
from pathlib import Path

from keras_seqattn.errors import DataError


def download(url, path, sha256):
    """Put what is at an address into the cache, complete or not at all.

    Args:
        url: str.
        path: pathlib.Path to write.
        sha256: str, hexadecimal, of the file.

    Raises:
        DataError: it is another file than expected.
        OSError: it cannot be reached.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".fetch-") as scratch:
        part = Path(scratch) / path.name
        with urllib.request.urlopen(url, timeout=30) as source, part.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
        keep(part, path, sha256)


def keep(part, path, sha256):
    """Move a fetched file to its place if its digest is the expected one.

    Args:
        part: pathlib.Path of the file, on the same disk as `path`.
        path: pathlib.Path.
        sha256: str, hexadecimal.

    Raises:
        DataError: the digest is another.
    """
    if digest(part) != sha256:
        raise DataError("its sha256 is not the expected one")
    os.replace(part, path)


def digest(path):
    """The sha256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
