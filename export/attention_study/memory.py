"""The peak memory of a call, beyond what its process held before: Linux with glibc.

The kernel keeps the highest resident size of a process, and forgets it on demand. What counts for a
call is the difference to the resident size just before. A process that measures has every block of
some size mapped afresh and given back when it is freed, from its start: blocks that once lay in the
allocator's own heap leave holes there, into which later blocks are put, and which stay.

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
_SMALL = 1 << 16


def give_back_freed():
    """Let this process hold no more memory than is in use, so that `extra_peak` sees what is.

    To be called before anything large is held and before there are other threads, which share
    one pool then.
    """
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_ARENA_MAX, 1)
    glibc.mallopt(_MMAP_THRESHOLD, _SMALL)


def keep_freed():
    """The opposite, from now on: nothing is given back, and `extra_peak` is over."""
    glibc = ctypes.CDLL(None)
    glibc.mallopt(_MMAP_MAX, 0)
    glibc.mallopt(_TRIM_THRESHOLD, -1)


def extra_peak(call):
    """Bytes that a call needs beyond what is held before it, its result included.

    To a few dozen KiB after `give_back_freed`; otherwise with what the allocator holds in reserve.

    Args:
        call: function without arguments, called once.

    Returns:
        int.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before = resident()
    (_PROCESS / "clear_refs").write_text("5")
    result = call()
    peak = _status("VmHWM")
    del result
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
