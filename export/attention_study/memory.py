"""The peak memory of a call, beyond what its process held before: Linux with glibc.

The kernel keeps the highest resident size of a process, and forgets it on demand. What counts for a
call is the difference to the resident size just before, when the allocator has given back all that
is free. During the call it maps every block of some size afresh and gives it back when it is freed,
so that neither its pools nor leftovers of earlier calls hide in the figure.

Time is the other way round. By itself the allocator gives every block above 32 MiB back when it is
freed, and has its pages mapped anew in the next call, which takes longer than most of what is
computed in it. onnxruntime and TensorFlow have pools that keep what is freed; JAX and PyTorch on
CPU leave it to the allocator, which is told to keep it while they are timed.
"""

import ctypes
import gc
import pathlib

_PROCESS = pathlib.Path("/proc/self")
# Of mallopt.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -3, -4, -8
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


def one_pool():
    """Let all threads of this process share one pool, of any size; to be called before they run."""
    ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)


def keep_freed():
    """Let this process keep all memory that is freed, from now on; `extra_peak` is over then."""
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_MMAP_MAX, 0)
    glibc.mallopt(_TRIM_THRESHOLD, -1)


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
