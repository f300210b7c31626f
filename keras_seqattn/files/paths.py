"""Checks the path of a result before the work for it begins."""

import errno
import os
import stat
import unicodedata
from pathlib import Path

from keras_seqattn.arguments import shown_path

# The limits of Linux and its usual file systems.
_NAME_BYTES, _PATH_BYTES = 255, 4095
_REMEDIES = {
    errno.ENOSPC: "make room or choose another place",
    errno.EDQUOT: "make room or choose another place",
    errno.EFBIG: "choose a place that takes larger files",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: "choose a place where you may write",
    errno.EPERM: "choose a place where you may write",
    errno.EROFS: "choose a place where you may write",
    errno.EBUSY: "choose another folder: this one is a mounted disk",
    errno.EXDEV: "choose another folder: part of this one is on another disk",
}


def resolve(path, error):
    """The real path of a result, without links.

    Args:
        path: str or os.PathLike.
        error: the class of the error to raise.

    Returns:
        str, absolute.

    Raises:
        error: nothing can be written there.
    """
    text = _text(path, error)
    try:
        real = _text(os.path.realpath(text), error)
        _check_links(text, error)
        _check_names(real, error)
        _check_parents(real, error)
    except OSError as failure:
        raise error(failure_text(text, failure)) from None
    return real


def failure_text(path, failure):
    """A message of one line for an OSError: what could not be written, why, and what to do."""
    reason = failure.strerror or (str(failure).splitlines() or ["unknown reason"])[0]
    if isinstance(failure.filename, str) and not os.path.abspath(failure.filename).startswith(
        os.path.dirname(path)
    ):
        reason += (
            f": {shown_path(failure.filename)!r}"  # not the result itself or its staging folder
        )
    remedy = _REMEDIES.get(failure.errno, "choose another place")
    return f"{shown_path(path)} cannot be written ({reason}): {remedy}"


def check_folder(path, error):
    """Refuse a real path if a rename cannot put a folder there."""
    if os.path.lexists(path) and not os.path.isdir(path):
        raise error(f"{path} is a file: name a folder")
    if os.path.ismount(path):
        raise error(f"{path} is the root of a disk: name a folder in it")
    if os.path.isdir(path) and _holds_us(path):
        raise error(
            f"{path} is or contains the current working folder, and a new folder would replace it: "
            "name a folder inside it, or run from elsewhere"
        )


def check_file(path, error):
    """Refuse a real path if a rename cannot put a file there."""
    if os.path.isdir(path):
        raise error(f"{path} is a folder: name a file, or remove the folder")
    if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
        raise error(f"{path} is not a regular file: name another file")


def with_ending(name, ending):
    """The name of a file with another ending; it is cut if the result is too long for a name."""
    while len(os.fsencode(name + ending)) > _NAME_BYTES:
        name = name[:-1]
    return name + ending


def _text(path, error):
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    if not isinstance(path, str):
        raise error(f"a path is a str or a pathlib.Path, not {type(path).__name__}")
    if not path:
        raise error("the path is empty: name a file or a folder")
    if any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in path):
        raise error(
            f"the path {shown_path(path)!r} has a line break, a control character or half a "
            "character in it: choose another name"
        )
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise error(
            f"the path {shown_path(path)} is longer than systems allow: choose a shorter one"
        )
    return path


def _check_links(path, error):
    path = Path(path)
    for place in (path, *path.parents):
        if os.path.islink(place) and not os.path.exists(place):
            raise error(
                f"{place} is a link that leads nowhere (to {os.readlink(place)!r}): make what it "
                "points to, or remove the link"
            )


def _check_names(path, error):
    for name in path.split(os.sep):
        if len(os.fsencode(name)) > _NAME_BYTES:
            raise error(
                f"the name {name[:40]}... has {len(os.fsencode(name))} bytes, and file systems "
                f"take {_NAME_BYTES}: choose a shorter one"
            )


def _check_parents(path, error):
    parent = os.path.dirname(path)
    while not os.path.lexists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
        raise error(f"{parent} is a file, so nothing can be in it: choose another place")


def _holds_us(path):
    try:
        here = os.path.realpath(os.getcwd())
    except OSError:  # it was removed
        return False
    return os.path.commonpath([here, path]) == path
