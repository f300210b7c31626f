"""Staging folders: made beside the path of a result, locked by their process, and then removed.

The name of a staging folder is `.seqattn-<16 hexadecimal digits>`, for every result. It has the
file `owner`, which its process keeps locked while it lives, and `new`, the unfinished result. When
the result is complete, it also has `journal.json`, which says how to finish or to undo the work.
"""

import contextlib
import json
import os
import re
import secrets
import shutil
import stat

from keras_seqattn.files.system import lock, sync, sync_folder

_NAME = re.compile(r"\.seqattn-[0-9a-f]{16}")
_TURN = ".seqattn-turn"
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_MARK = b"Made by keras_seqattn; its next run removes this folder.\n"


class Staging:
    """One staging folder.

    Args:
        parent: str, the folder in which the result will be.
        path: str, the path of an existing staging folder; None for a new one, made by `create`.

    Attributes:
        new: the folder for the result.
        old: the path of a replaced folder on systems that cannot exchange folders.
    """

    def __init__(self, parent, path=None):
        self.parent = parent
        self.path = path or os.path.join(parent, f".seqattn-{secrets.token_hex(8)}")
        self.new = os.path.join(self.path, "new")
        self.old = os.path.join(self.path, "old")
        self._owner = os.path.join(self.path, "owner")
        self._journal = os.path.join(self.path, "journal.json")
        self._number = None

    def create(self):
        """Make the folder. Call it inside `turn`: until it is locked, it looks like a leftover."""
        os.mkdir(self.path, 0o700)
        self._number = os.open(self._owner, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        lock(self._number)
        os.write(self._number, _MARK)
        os.mkdir(self.new)

    def adopt(self):
        """Take over the folder if it is a staging folder and its process is dead.

        Returns:
            bool.
        """
        try:
            if not stat.S_ISDIR(os.lstat(self.path).st_mode):
                return False
            names = os.listdir(self.path)
            if "owner" in names and stat.S_ISREG(os.lstat(self._owner).st_mode):
                self._number = os.open(self._owner, os.O_RDWR | _NO_FOLLOW)
                mark = os.read(self._number, 2 * len(_MARK))
                # If the process died at once, the file is empty.
                ours = mark == _MARK or (not mark and names == ["owner"])
                if ours and lock(self._number):
                    return True
                self.close()
                return False
            return not names
        except OSError:  # not ours, or removed by now
            return False

    def write_journal(self, content):
        """Write to the disk what will be done next."""
        with open(self._journal, "w", encoding="utf-8") as file:
            json.dump(content, file)
        sync(self._journal)
        sync_folder(self.path)

    def read_journal(self):
        """The work to finish or to undo: dict, or None."""
        try:
            with open(self._journal, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):  # there is none, or it is incomplete
            return None

    def drop_journal(self):
        """Remove the journal: there is nothing to finish or to undo."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._journal)

    def remove(self):
        """Remove the folder. The order makes sure that a rest of it is still known as ours."""
        if not os.path.lexists(self.path):
            return self.close()
        for name in (self.new, self.old):
            shutil.rmtree(name, ignore_errors=True)
            if os.path.isdir(name):
                _let_us_write(name)
                shutil.rmtree(name, ignore_errors=True)
        for name in (self._journal, self._owner):
            with contextlib.suppress(OSError):
                os.unlink(name)
        with contextlib.suppress(OSError):
            os.rmdir(self.path)
        self.close()

    def close(self):
        """Release the lock."""
        if self._number is not None:
            os.close(self._number)
            self._number = None


def _let_us_write(folder):
    """Make folders writable: linked folders have permissions of other people."""
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                _let_us_write(entry.path)


def leftovers(parent):
    """Take over and yield the staging folders of dead processes. Call it inside `turn`."""
    try:
        names = sorted(os.listdir(parent))
    except PermissionError:  # a folder may be writable but not readable
        return
    for name in names:
        if _NAME.fullmatch(name):
            staging = Staging(parent, os.path.join(parent, name))
            if staging.adopt():
                yield staging


@contextlib.contextmanager
def turn(parent):
    """Let one process at a time begin or finish a result in a folder; the others wait."""
    path = os.path.join(parent, _TURN)
    number, ours = None, False
    try:
        while not ours:
            if number is not None:
                os.close(number)
                number = None
            number = _open_turn(path)
            if number is not None:
                lock(number, wait=True)
                # The process before us removed the file; then we must make a new one.
                ours = _is_at(number, path)
        yield
    finally:
        try:
            if ours:
                finish(lambda: _remove_turn(number, path))
        finally:
            if number is not None:
                os.close(number)
            if not ours:  # interrupted, perhaps just after making the file
                finish(lambda: _remove_free_turn(path))


def _remove_turn(number, path):
    if not os.fstat(number).st_size:  # a file with content is not ours
        with contextlib.suppress(OSError):
            os.unlink(path)


def _remove_free_turn(path):
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDONLY | _NO_FOLLOW)
        try:
            if lock(number) and _is_at(number, path):
                _remove_turn(number, path)
        finally:
            os.close(number)


def finish(action):
    """Run an action that is harmless to run twice; an interrupt waits until it is finished."""
    try:
        action()
    except KeyboardInterrupt:
        action()
        raise


def _open_turn(path):
    """A descriptor, or None if another process made or removed the file first."""
    try:
        return os.open(path, os.O_RDONLY | _NO_FOLLOW)
    except FileNotFoundError:
        pass
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    if os.chmod in os.supports_fd:
        # Other users must be able to wait for it, with every umask.
        os.chmod(number, 0o644)
    return number


def _is_at(number, path):
    try:
        there, opened = os.lstat(path), os.fstat(number)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
