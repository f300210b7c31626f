"""Keeps the files of other people when a new folder replaces an old one."""

import contextlib
import errno
import filecmp
import os
import shutil
import stat

from keras_seqattn.files.paths import with_ending
from keras_seqattn.files.system import sync

_NO_HARD_LINKS = (
    errno.EPERM,
    errno.EACCES,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EINVAL,
)


def stamp(path):
    """Values of a file that change when somebody replaces it or writes to it."""
    found = os.lstat(path)
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def has_stamp(path, expected):
    """Whether a file is still there and unchanged."""
    try:
        return stamp(path) == expected
    except OSError:
        return False


def carry_over(old, new, owned, claimed=()):
    """Link everything in `old` that is not owned into `new`, which has the new files.

    Args:
        old: the old folder.
        new: the folder that will replace it.
        owned: collection of relative names (with "/") of files that may be dropped.
        claimed: names under which `new` may have only its own files, or no file.

    Returns:
        dict of relative name -> the name in `new`, for files that got another name because `new`
        has its own file of that name.

    Raises:
        OSError: a file cannot be linked or copied.
    """
    kept = {}
    device = os.lstat(old).st_dev

    def visit(source, target):
        for entry in sorted(os.scandir(os.path.join(old, source)), key=lambda entry: entry.name):
            name, to = _join(source, entry.name), _join(target, entry.name)
            is_folder = entry.is_dir(follow_symlinks=False)
            if name in owned and not is_folder:
                continue
            if is_folder and entry.stat(follow_symlinks=False).st_dev != device:
                raise OSError(errno.EXDEV, "another disk is mounted in it", entry.path)
            place = os.path.join(new, to)
            taken = os.path.lexists(place) or to in claimed
            if is_folder and os.path.isdir(place) and not os.path.islink(place):
                visit(name, to)
                continue
            if taken and not is_folder and _same_content(entry.path, place):
                continue
            if taken:
                to = kept[name] = free_name(to, old, new)
                place = os.path.join(new, to)
            if not is_folder:
                _link(entry.path, place)
            elif not _all_owned(entry.path, name, owned):
                os.mkdir(place)
                visit(name, to)
                make_alike(entry.path, place)  # last, because it may become read-only

    visit("", "")
    return kept


def reclaim(old, target, owned, kept):
    """Move files into `target` that somebody added to `old`, or changed there, after `carry_over`.

    Args:
        old: the replaced folder.
        target: the folder that replaced it.
        owned: dict of relative name -> `stamp` of the files that may be dropped.
        kept: the result of `carry_over`.
    """
    for place, folders, files in os.walk(old):
        for name in [*folders, *files]:
            path = os.path.join(place, name)
            relative = os.path.relpath(path, old).replace(os.sep, "/")
            to = _kept_name(relative, kept)
            there = os.path.join(target, to)
            if name in folders and not os.path.islink(path):
                if not os.path.lexists(there) and not _leads_to(relative, owned):
                    folders.remove(name)
                    os.rename(path, there)
                continue
            if has_stamp(path, owned.get(relative)) or _was_carried(path, there):
                continue
            os.makedirs(os.path.dirname(there), exist_ok=True)
            if os.path.lexists(there):
                there = os.path.join(target, free_name(to, target))
            os.rename(path, there)


def make_alike(source, target):
    """Give a folder the permissions, the times and, if allowed, the owner of another folder."""
    shutil.copystat(source, target)
    found = os.stat(source)
    with contextlib.suppress(OSError, AttributeError):
        os.chown(target, found.st_uid, found.st_gid)


def free_name(name, *folders):
    """A relative name beside `name` that is free in all folders: `<name>.kept`, `.kept2`, ..."""
    folder, base = os.path.split(name)
    number = 1
    while True:
        suffix = f".kept{number if number > 1 else ''}"
        found = _join(folder, with_ending(base, suffix))
        if not any(os.path.lexists(os.path.join(place, found)) for place in folders):
            return found
        number += 1


def _join(folder, name):
    return f"{folder}/{name}" if folder else name


def _same_content(first, second):
    try:
        modes = [os.lstat(path).st_mode for path in (first, second)]
        return all(map(stat.S_ISREG, modes)) and filecmp.cmp(first, second, shallow=False)
    except OSError:
        return False


def _all_owned(folder, name, owned):
    """Whether a folder holds only owned files."""
    found = False
    for place, folders, files in os.walk(folder):
        inside = os.path.relpath(place, folder).replace(os.sep, "/")
        base = name if inside == "." else f"{name}/{inside}"
        links = [f for f in folders if os.path.islink(os.path.join(place, f))]
        if not all(f"{base}/{file}" in owned for file in [*files, *links]):
            return False
        if not folders and not files:
            return False
        found = found or bool(files)
    return found


def _link(source, target):
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        shutil.copy2(source, target, follow_symlinks=False)
        if not os.path.islink(target):
            sync(target)


def _kept_name(name, kept):
    """The name in the new folder, if the file or a folder above it was kept under another name."""
    head, tail = name, ""
    while head:
        if head in kept:
            return kept[head] + tail
        head, _, last = head.rpartition("/")
        tail = f"/{last}{tail}"
    return name


def _leads_to(folder, owned):
    return any(name.startswith(folder + "/") for name in owned)


def _was_carried(path, there):
    try:
        found, other = os.lstat(path), os.lstat(there)
    except OSError:
        return False
    if (found.st_dev, found.st_ino) == (other.st_dev, other.st_ino):
        return True
    # The other file is a copy, or it has the kept name because its content was the same.
    if stat.S_ISLNK(found.st_mode) and stat.S_ISLNK(other.st_mode):
        return os.readlink(path) == os.readlink(there)
    return _same_content(path, there)
