"""The available memory, so that work that cannot fit is refused before it begins."""

import os
from pathlib import Path

from keras_seqattn.errors import InputError

# Smaller needs are never refused, and the system is not asked.
_SMALL = 64 << 20
# The available memory if the system does not say it.
_UNKNOWN = 64 << 30
_CGROUPS = Path("/sys/fs/cgroup")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def available_memory():
    """int, bytes that this process can still take, by its machine, its container and its limits."""
    found = (_of_the_machine(), _of_the_container(), _of_the_process())
    return max(0, min((size for size in found if size is not None), default=_UNKNOWN))


def check_memory(needed, what, remedy):
    """Refuse work that needs more memory than there is.

    Args:
        needed: int, bytes.
        what: str, what needs the memory, for the message.
        remedy: str, what the user can do.

    Raises:
        InputError: fewer bytes are available.
    """
    if needed <= _SMALL:
        return
    available = available_memory()
    if needed > available:
        raise InputError(
            f"{what} need at least {size_text(needed)} of memory, and {size_text(available)} are "
            f"available: {remedy}"
        )


def size_text(size):
    """A number of bytes as text, for example "1.5 MiB"."""
    size = float(min(size, 10**30))
    for unit in _UNITS:
        if size < 1024 or unit == _UNITS[-1]:
            break
        size /= 1024
    if size >= 10**6:
        return f"over a million {unit}"
    return f"{size:.3g} {unit}" if size < 1000 else f"{size:.0f} {unit}"


def _of_the_machine():
    try:
        text = Path("/proc/meminfo").read_text()
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _of_the_container():
    """The memory that a control group (version 2 or 1) leaves."""
    try:
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return None
    left = []
    for _, controllers, path in groups:
        if controllers == "":
            names = (_CGROUPS, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            names = (_CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        else:
            continue
        # Inside a container, its own group is mounted as the root.
        left += [_left(names[0] / path.lstrip("/"), *names[1:]), _left(*names)]
    return min((size for size in left if size is not None), default=None)


def _left(folder, limit, usage):
    try:
        left = int((folder / limit).read_text()) - int((folder / usage).read_text())
        # Pages of files count as used, but the system gives them back if memory is needed.
        entries = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return left + int(entries.get("inactive_file", 0)) + int(entries.get("active_file", 0))
    except (OSError, ValueError):  # there is none, or its limit is "max"
        return None


def _of_the_process():
    """The memory that the limits of the shell (ulimit) leave."""
    try:
        import resource

        pages = Path("/proc/self/statm").read_text().split()
    except (ImportError, OSError):
        return None
    taken = {resource.RLIMIT_AS: int(pages[0]), resource.RLIMIT_DATA: int(pages[5])}
    limits = {name: resource.getrlimit(name)[0] for name in taken}
    left = [
        limit - taken[name] * resource.getpagesize()
        for name, limit in limits.items()
        if limit != resource.RLIM_INFINITY
    ]
    return min(left, default=None)
