"""Puts a finished file at its path, after the files that it refers to."""

import contextlib
import errno
import filecmp
import os
import shutil

from keras_seqattn.files.carry import has_stamp, stamp
from keras_seqattn.files.system import sync_folder


def commit_file(staging, target, stale):
    """Put the files of `staging.new` into the folder of the target, the target itself last.

    Args:
        staging: the `Staging`.
        target: str, the real path of the file.
        stale: function(target) -> names of files in its folder to which only the old file refers.

    Raises:
        OSError: a file is in the way.
    """
    main = os.path.basename(target)
    finished = os.path.join(staging.new, main)
    companions = sorted(set(os.listdir(staging.new)) - {main})
    journal = {"file": main, "placed": {}, "stale": {}}
    for name in companions:
        there, made = os.path.join(staging.parent, name), os.path.join(staging.new, name)
        if not os.path.lexists(there):
            journal["placed"][name] = stamp(made)
        elif os.path.islink(there) or not filecmp.cmp(there, made, shallow=False):
            raise OSError(errno.EEXIST, f"{name} beside it is another file: move it away", there)
    if os.path.lexists(target):
        names = set(stale(target)) - set(companions)
        there = {name: os.path.join(staging.parent, name) for name in names}
        journal["stale"] = {n: stamp(path) for n, path in there.items() if os.path.lexists(path)}
        shutil.copymode(target, finished)
    staging.write_journal(journal)
    for name in journal["placed"]:
        os.rename(os.path.join(staging.new, name), os.path.join(staging.parent, name))
    sync_folder(staging.parent)
    os.replace(finished, target)
    sync_folder(staging.parent)
    recover_file(staging, journal)


def recover_file(staging, journal):
    """Remove the files to which the target does not refer: those of the old or of the new file."""
    is_done = not os.path.lexists(os.path.join(staging.new, journal["file"]))
    for name, known in journal["stale" if is_done else "placed"].items():
        path = os.path.join(staging.parent, name)
        if has_stamp(path, known):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
    staging.drop_journal()
