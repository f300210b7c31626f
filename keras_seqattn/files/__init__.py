"""Writes files and folders so that a path holds the whole old result or the whole new one.

Everything that the library writes goes through here: first into a staging folder beside its place,
then, flushed to the disk, into its place by one rename. Files that others wrote are kept.
"""

from keras_seqattn.files.listing import listed_files, unchanged_files
from keras_seqattn.files.paths import resolve, with_ending
from keras_seqattn.files.publish import FileTarget, FolderTarget
from keras_seqattn.files.reading import read_settled
from keras_seqattn.files.system import digest

__all__ = [
    "FileTarget",
    "FolderTarget",
    "digest",
    "listed_files",
    "read_settled",
    "resolve",
    "unchanged_files",
    "with_ending",
]
