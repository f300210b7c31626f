"""Says on standard error which step of long work is under way, and how long it took."""

import contextlib
import sys
import time


class Steps:
    """Announces steps, so that standard output holds results only.

    Args:
        quiet: bool, whether to say nothing at all.

    Example:
        >>> steps = Steps()
        >>> with steps("load the weights"):
        ...     load()
        load the weights ... 1.3 s
    """

    def __init__(self, quiet=False):
        self._quiet = quiet

    @contextlib.contextmanager
    def __call__(self, title):
        """Announce `title`, run the body, and add how long it took (nothing if it raised)."""
        self._write(f"{title} ... ")
        start = time.perf_counter()
        try:
            yield
        except BaseException:
            self._write("\n")
            raise
        self._write(f"{time.perf_counter() - start:.1f} s\n")

    def say(self, text):
        """Print a line between steps."""
        self._write(f"{text}\n")

    def _write(self, text):
        if not self._quiet:
            print(text, end="", file=sys.stderr, flush=True)
