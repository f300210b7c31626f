"""Shows the steps of long work on standard error, and the time of each step."""

import contextlib
import sys
import time

from tqdm import tqdm

_SPINNING = "{desc} ... {elapsed}"
_COUNTING = "{desc} {bar:20} {n_fmt}/{total_fmt}"


class Steps:
    """Announces steps on standard error, so that standard output has only results.

    Args:
        quiet: bool, show nothing.

    Example:
        >>> steps = Steps()
        >>> with steps("read the weights") as progress:
        ...     read(progress)
        read the weights: 1.3 s
    """

    def __init__(self, quiet=False):
        self._quiet = quiet

    @contextlib.contextmanager
    def __call__(self, title):
        """Show `title` while the body runs, and then the time that it took.

        Yields:
            A callback `(stage, done, total)` that shows the progress of the body.
        """
        # disable=None of tqdm means: show the bar only in a terminal.
        bar = tqdm(
            desc=title, bar_format=_SPINNING, leave=False, disable=True if self._quiet else None
        )

        def progress(stage, done, total):
            if not bar.disable:
                bar.bar_format, bar.total, bar.n = _COUNTING, total, done
                bar.set_description_str(f"{title}: {stage}")

        start = time.perf_counter()
        with bar:
            yield progress
        self.say(f"{title}: {time.perf_counter() - start:.1f} s")

    def say(self, text):
        """Print a line between steps."""
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)
