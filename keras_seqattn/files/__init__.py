"""Writes files and folders so that a path always holds the complete old or the complete new result.

The library writes everything with this package: first into a staging folder beside the path, then
flushed to the disk, then moved to the path by one rename. Files of other people are kept.
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
