"""Where samples are kept."""

import os
from pathlib import Path

from keras_seqattn.errors import DataError


def cache_dir():
    """The user's cache: $KERAS_SEQATTN_CACHE, else keras-seqattn in $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("KERAS_SEQATTN_CACHE")
    base = chosen or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        base = Path(base).expanduser()
    except RuntimeError:
        raise DataError(
            f"there is no home folder to find {base} in: set KERAS_SEQATTN_CACHE to a folder"
        ) from None
    return base if chosen else base / "keras-seqattn"
