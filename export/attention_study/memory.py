"""The peak memory of a call, beyond what its process held before: Linux with glibc.

The kernel keeps the highest resident size of a process, and forgets it on demand. What counts for a
call is the difference to the resident size just before, when the allocator has given back all that
is free. During the call it maps every block of some size afresh and gives it back when it is freed,
so that neither its pools nor leftovers of earlier calls hide in the figure.
"""

import ctypes
import gc
import pathlib

_PROCESS = pathlib.Path("/proc/self")
_MMAP_THRESHOLD = -3
_SMALL, _LARGE = 1 << 16, 1 << 25


def extra_peak(call):
    """Bytes that a call needs beyond what is held before it, its result included.

    Args:
        call: function without arguments, called once.

    Returns:
        int.
    """
    glibc = ctypes.CDLL(None)
    gc.collect()
    glibc.mallopt(_MMAP_THRESHOLD, _SMALL)
    glibc.malloc_trim(0)
    before = resident()
    (_PROCESS / "clear_refs").write_text("5")
    result = call()
    peak = _status("VmHWM")
    del result
    glibc.mallopt(_MMAP_THRESHOLD, _LARGE)
    return max(0, peak - before)


def check():
    """Refuse to measure where there is nothing to measure with.

    Raises:
        SystemExit: this is no Linux, or has no glibc.
    """
    if not (_PROCESS / "clear_refs").exists() or not hasattr(ctypes.CDLL(None), "mallopt"):
        raise SystemExit("peak memory is measured by Linux's /proc and glibc: run it there")


def available():
    """Bytes that new processes can have without swapping."""
    return _field(pathlib.Path("/proc/meminfo"), "MemAvailable")


def resident():
    """Bytes of this process in memory."""
    return _status("VmRSS")


def give_way():
    """Let the kernel end this process first if memory runs out."""
    (_PROCESS / "oom_score_adj").write_text("1000")


def _status(name):
    return _field(_PROCESS / "status", name)


def _field(path, name):
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) << 10
