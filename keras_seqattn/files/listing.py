"""The files that a bundle's parity.json lists, and those of them that nobody has changed."""

import json
import os
import re
import stat
from pathlib import PurePosixPath

from keras_seqattn.files.system import digest

LISTING = "parity.json"
_LISTING_BYTES = 64 << 20
_SHA256 = re.compile("[0-9a-f]{64}")


def listed_files(folder):
    """What a bundle's parity.json lists.

    Args:
        folder: the folder.

    Returns:
        dict of relative name -> (size, sha256), or None if it holds no parity.json that lists
        files as the exporter writes it.
    """
    path = os.path.join(folder, LISTING)
    try:
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _LISTING_BYTES:
            return None
        with open(path, "rb") as file:
            content = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not files:
        return None
    if not all(_is_entry(name, entry) for name, entry in files.items()):
        return None
    return {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}


def unchanged_files(folder):
    """Names of the listed files that have the listed size and SHA-256, and of the list itself."""
    listed = listed_files(folder) or {}
    names = {name for name, expected in listed.items() if _is_file(folder, name, *expected)}
    return names | {LISTING} if listed else names


def _is_entry(name, entry):
    parts = PurePosixPath(name).parts
    safe = parts and ".." not in parts and not name.startswith("/") and "\0" not in name
    if not safe or not isinstance(entry, dict):
        return False
    size, sha256 = entry.get("size"), entry.get("sha256")
    return type(size) is int and isinstance(sha256, str) and bool(_SHA256.fullmatch(sha256))


def _is_file(folder, name, size, sha256):
    path = os.path.join(folder, name)
    try:
        if os.path.realpath(path) != os.path.join(os.path.realpath(folder), *name.split("/")):
            return False  # it is, or lies behind, a link that somebody else made
        found = os.lstat(path)
        regular = stat.S_ISREG(found.st_mode) and found.st_size == size
        return regular and digest(path) == sha256
    except (OSError, ValueError):
        return False
