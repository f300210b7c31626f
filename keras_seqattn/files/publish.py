"""The target of a result: a folder, or a file with other files that it refers to."""

import contextlib
import os
import warnings

from keras_seqattn.files import paths
from keras_seqattn.files.folders import commit_folder, recover_folder
from keras_seqattn.files.singles import commit_file, recover_file
from keras_seqattn.files.staging import Staging, finish, leftovers, turn
from keras_seqattn.files.system import sync_folder, sync_tree


class _Target:
    """A checked path.

    Args:
        path: str or os.PathLike, the path from the user; links are followed and stay.
        error: the class of the errors to raise.

    Attributes:
        path: str, the real path.
        name: str, the last part of the path.

    Raises:
        error: nothing can be written there.
    """

    def __init__(self, path, error):
        self.path = paths.resolve(path, error)
        self.name = os.path.basename(self.path)
        self._error = error

    @contextlib.contextmanager
    def staged(self):
        """Yield an empty folder to write into; its content goes to the path if the block succeeds.

        At every instant the path holds the complete old or the complete new result, even if the
        process is killed or the power fails. If another process writes to the same path, one waits
        for the other. Leftovers of killed processes are removed.

        Raises:
            error: the result cannot be written; the path did not change.
        """
        try:
            parent = os.path.dirname(self.path)
            with _folders(parent), _staging(parent) as staging:
                yield staging.new
                sync_tree(staging.new)
                with turn(parent):
                    self._check()
                    told = self._commit(staging)
        except OSError as failure:
            raise self._error(paths.failure_text(self.path, failure)) from failure
        if told:
            warnings.warn(told, stacklevel=4)

    def _check(self):
        raise NotImplementedError

    def _commit(self, staging):
        raise NotImplementedError


class FolderTarget(_Target):
    """A path for a folder.

    Args:
        path: str or os.PathLike.
        error: the class of the errors to raise.
        accept: function(folder) that raises if the folder at the path, which is not empty, must not
            be replaced.
        owned: function(folder, names of the new files) -> names of files that the library wrote and
            may drop. All other files are kept. If a new file needs the name of such a file, the old
            file gets another name, with a warning.
        claimed: names that only the new files may have; other files get another name.
    """

    def __init__(self, path, error, accept=None, owned=None, claimed=()):
        super().__init__(path, error)
        self._accept, self._claimed = accept, claimed
        self._owned = owned or (lambda folder, names: ())
        try:
            self._check()
        except OSError as failure:
            raise error(paths.failure_text(self.path, failure)) from failure

    def _check(self):
        paths.check_folder(self.path, self._error)
        if self._accept and os.path.isdir(self.path) and os.listdir(self.path):
            self._accept(self.path)

    def _commit(self, staging):
        kept = commit_folder(staging, self.path, self._owned, self._claimed)
        if kept:
            names = ", ".join(f"{name} as {to}" for name, to in sorted(kept.items()))
            return f"{self.path} held files that are not those written before; kept {names}"


class FileTarget(_Target):
    """A path for a file, written with its base name, and for other files that it refers to.

    Args:
        path: str or os.PathLike.
        error: the class of the errors to raise.
        stale: function(path) -> names of files in the same folder that the library wrote, and to
            which only the old file at the path refers.
    """

    def __init__(self, path, error, stale=None):
        super().__init__(path, error)
        self._stale = stale or (lambda path: ())
        if str(path).endswith(("/", os.sep)):
            raise error(f"{path} ends in a slash, and a file is to be written: leave the slash out")
        self._check()

    def _check(self):
        paths.check_file(self.path, self._error)

    def _commit(self, staging):
        commit_file(staging, self.path, self._stale)


@contextlib.contextmanager
def _staging(parent):
    staging = Staging(parent)
    try:
        with turn(parent):
            for leftover in leftovers(parent):
                # If this cannot be finished now, the next run tries again; this run goes on.
                with contextlib.suppress(OSError):
                    _recover(leftover)
                    leftover.remove()
                leftover.close()
            staging.create()
        yield staging
    finally:
        try:
            finish(lambda: _clean(staging))
        finally:
            staging.close()


def _clean(staging):
    if staging.read_journal():
        with turn(staging.parent):
            _recover(staging)
    staging.remove()


def _recover(staging):
    journal = staging.read_journal()
    if journal:
        (recover_folder if "folder" in journal else recover_file)(staging, journal)


@contextlib.contextmanager
def _folders(path):
    """Make a folder and its parents; at the end, remove those of them that stayed empty."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    try:
        for folder in reversed(missing):
            os.makedirs(folder, exist_ok=True)
            sync_folder(os.path.dirname(folder))
        yield
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
