"""The functions of the operating system for safe writing: exchange, flush, lock; file digests."""

import contextlib
import ctypes
import errno
import hashlib
import os

try:
    import fcntl
except ImportError:  # missing on Windows, where leftovers of killed processes stay
    fcntl = None

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)


def exchange(first, second):
    """Exchange two folders in one step.

    Returns:
        bool, False if the system or the file system cannot do that; nothing has changed then.

    Raises:
        OSError: the folders cannot be exchanged for another reason.
    """
    rename = _renameat2()
    if rename is None:
        return False
    arguments = (_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE)
    if rename(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NOT_HERE:
        return False
    raise OSError(number, os.strerror(number), first, None, second)


def digest(path):
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path):
    """Flush a file or the entries of a folder to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def sync_folder(path):
    """Flush the entries of a folder to the disk, if the system can do that for folders."""
    with contextlib.suppress(OSError):
        sync(path)


def sync_tree(folder):
    """Flush a folder and all files and folders below it."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(os.path.join(place, name))
        sync_folder(place)


def lock(number, wait=False):
    """Lock an open file for only this process, as long as the file stays open.

    Returns:
        True; False if another process holds the lock; None if files cannot be locked.
    """
    if fcntl is None:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _renameat2():
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (
        OSError,
        TypeError,
        AttributeError,
    ):  # another system, or the C library does not have it
        return None
    function.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )
    return function
