"""Where samples are kept."""

import os
from pathlib import Path


def cache_dir():
    """The user's cache: $KERAS_SEQATTN_CACHE, else keras-seqattn in $XDG_CACHE_HOME or ~/.cache."""
    chosen = os.environ.get("KERAS_SEQATTN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "keras-seqattn"
