"""Fetches one file and keeps it only if it is the expected one."""

import contextlib
import shutil
import urllib.request
from pathlib import Path

from keras_seqattn.errors import DataError
from keras_seqattn.files import FileTarget, digest

__all__ = ["digest", "download", "is_kept", "keep"]


def download(url, path, sha256):
    """Fetch a file into the cache, completely or not at all.

    Args:
        url: str.
        path: pathlib.Path to write.
        sha256: str, the digest of the file in hexadecimal digits.

    Raises:
        DataError: it is another file than expected, or it cannot be written.
        OSError: the address cannot be reached.
    """
    with urllib.request.urlopen(url, timeout=30) as source, keep(path, sha256) as part:
        with part.open("wb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)


@contextlib.contextmanager
def keep(path, sha256):
    """Yield a path for a fetched file, which is then moved to `path` if it is the expected file.

    Args:
        path: pathlib.Path, the final path.
        sha256: str, the digest in hexadecimal digits.

    Raises:
        DataError: the file has another digest, or it cannot be written.
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
