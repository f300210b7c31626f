"""The files that the parity.json of a bundle lists, and those that nobody changed."""

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
    """The files that the parity.json of a bundle lists.

    Args:
        folder: the folder.

    Returns:
        dict of relative name -> (size, sha256); None if there is no parity.json with a list of
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
    """The names of listed files with the listed size and SHA-256, and the name of the list."""
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
            return False  # somebody else made this link, or a link to its folder
        found = os.lstat(path)
        regular = stat.S_ISREG(found.st_mode) and found.st_size == size
        return regular and digest(path) == sha256
    except (OSError, ValueError):
        return False
