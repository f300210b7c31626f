"""Staging folders: made beside a result's place, held by a lock, removed after their process.

A staging folder is `.seqattn-<16 hexadecimal digits>`, whatever the result is called. It holds
`owner`, a file that its process keeps locked as long as it lives, `new`, the result in the making,
and, once the result is complete, `journal.json`, which says how to finish or to go back.
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
        path: str, that of a folder that is there, or None for one that `create` makes.

    Attributes:
        new: the folder to write the result into.
        old: where a replaced folder waits on systems that cannot exchange folders.
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
        """Make the folder. Call it in one's turn: until it is locked it looks like a leftover."""
        os.mkdir(self.path, 0o700)
        self._number = os.open(self._owner, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        lock(self._number)
        os.write(self._number, _MARK)
        os.mkdir(self.new)

    def adopt(self):
        """Take the folder over if it is ours and its process is dead.

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
                # A process that died at once has left the file empty.
                ours = mark == _MARK or (not mark and names == ["owner"])
                if ours and lock(self._number):
                    return True
                self.close()
                return False
            return not names
        except OSError:  # somebody else's, or removed meanwhile
            return False

    def write_journal(self, content):
        """Note on the disk what is about to be done."""
        with open(self._journal, "w", encoding="utf-8") as file:
            json.dump(content, file)
        sync(self._journal)
        sync_folder(self.path)

    def read_journal(self):
        """What is to be finished or undone: dict, or None."""
        try:
            with open(self._journal, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError):  # none was begun, or its writing was cut off
            return None

    def drop_journal(self):
        """Nothing is left to be finished or undone."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._journal)

    def remove(self):
        """Remove the folder, in an order in which what is left can be recognised as ours."""
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
        """Let go of the lock."""
        if self._number is not None:
            os.close(self._number)
            self._number = None


def _let_us_write(folder):
    """Carried folders have others' permissions, under which they cannot always be removed."""
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                _let_us_write(entry.path)


def leftovers(parent):
    """Yield the staging folders of dead processes, taken over. Call it in one's turn."""
    try:
        names = sorted(os.listdir(parent))
    except PermissionError:  # one may write into a folder without reading it
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
                # Whoever had the turn before has removed the file, and the next one makes another.
                ours = _is_at(number, path)
        yield
    finally:
        try:
            if ours:
                finish(lambda: _remove_turn(number, path))
        finally:
            if number is not None:
                os.close(number)
            if not ours:  # interrupted, perhaps when the file had just been made
                finish(lambda: _remove_free_turn(path))


def _remove_turn(number, path):
    if not os.fstat(number).st_size:  # what holds something is somebody's
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
    """Do what is harmless to do twice; an interrupt waits until it is done."""
    try:
        action()
    except KeyboardInterrupt:
        action()
        raise


def _open_turn(path):
    """A descriptor, or None if another process was quicker to make or to remove the file."""
    try:
        return os.open(path, os.O_RDONLY | _NO_FOLLOW)
    except FileNotFoundError:
        pass
    try:
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return None
    if os.chmod in os.supports_fd:
        # Other users must be able to wait for it, whatever the umask.
        os.chmod(number, 0o644)
    return number


def _is_at(number, path):
    try:
        there, opened = os.lstat(path), os.fstat(number)
    except OSError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
