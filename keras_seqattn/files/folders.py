"""Puts a finished folder at its path, where an older folder may be."""

import os

from keras_seqattn.files.carry import carry_over, make_alike, reclaim, stamp
from keras_seqattn.files.system import exchange, sync_folder


def commit_folder(staging, target, owned, claimed):
    """Put `staging.new` at `target`, and keep the files of other people there.

    Args:
        staging: the `Staging`.
        target: str, the real path.
        owned: function(folder, names of the new files) -> names of old files that may be dropped.
        claimed: names that only the new files may have.

    Returns:
        dict of name -> new name, for files of other people that had the name of a new file.
    """
    journal = {"folder": os.path.basename(target), "replaced": None, "owned": {}, "kept": {}}
    if os.path.lexists(target):
        old = os.lstat(target)
        names = set(owned(target, _file_names(staging.new)))
        there = {name for name in names if os.path.lexists(os.path.join(target, name))}
        journal["replaced"] = [old.st_dev, old.st_ino]
        journal["owned"] = {name: stamp(os.path.join(target, name)) for name in sorted(there)}
        journal["kept"] = carry_over(target, staging.new, there, claimed)
        make_alike(target, staging.new)
        for place, _, _ in os.walk(staging.new, topdown=False):
            sync_folder(place)
    staging.write_journal(journal)
    if journal["replaced"] is None:
        os.rename(staging.new, target)
    elif not exchange(staging.new, target):
        os.rename(target, staging.old)
        os.rename(staging.new, target)
    sync_folder(staging.parent)
    recover_folder(staging, journal)
    return journal["kept"]


def recover_folder(staging, journal):
    """Finish the work of a killed process; harmless if it is finished, or was not begun."""
    target = os.path.join(staging.parent, journal["folder"])
    if not os.path.lexists(target) and os.path.isdir(staging.old):
        os.rename(staging.new if os.path.isdir(staging.new) else staging.old, target)
        sync_folder(staging.parent)
    for place in (staging.old, staging.new):
        if os.path.isdir(place) and _number(place) == journal["replaced"]:
            reclaim(place, target, journal["owned"], journal["kept"])
    staging.drop_journal()


def _number(path):
    found = os.lstat(path)
    return [found.st_dev, found.st_ino]


def _file_names(folder):
    return {
        os.path.relpath(os.path.join(place, name), folder).replace(os.sep, "/")
        for place, _, names in os.walk(folder)
        for name in names
    }
