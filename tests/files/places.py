"""What the tests of keras_seqattn.files share: writing, listing, and being stopped at each step."""

import contextlib
import os
import signal
import sys
from pathlib import Path

from keras_seqattn.errors import ExportError
from keras_seqattn.files import FileTarget, FolderTarget

_hooks = []  # what is called at each step; a hook of the interpreter itself stays for ever


def put(folder, files):
    """Write a dict of relative name -> text; None makes an empty folder."""
    for name, text in files.items():
        path = Path(folder) / name
        if text is None:
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def held(folder):
    """The opposite of `put`, with links as "-> target"."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[name] = path.read_text(errors="replace")
        elif not any(path.iterdir()):
            found[name] = None
    return found


def publish(path, files, owned=(), **settings):
    """Put files at a folder's path, over older ones of which some are owned."""
    target = FolderTarget(path, ExportError, owned=lambda folder, names: set(owned), **settings)
    with target.staged() as folder:
        put(folder, files)


def publish_file(path, text, companions=(), stale=()):
    """Put a file at a path, with others beside it."""
    target = FileTarget(path, ExportError, stale=lambda path: set(stale))
    with target.staged() as folder:
        put(folder, {target.name: text, **dict(companions)})


def stopped_at_each_step(work, stop):
    """Call `work()` again and again, with `stop()` at its first, second, ... step in the file
    system, and yield after each; the last time it is not stopped.
    """
    number = 0
    while True:
        number += 1
        with _at_step(number, stop) as was_reached, contextlib.suppress(KeyboardInterrupt):
            work()
        yield number
        if not was_reached():
            return


@contextlib.contextmanager
def _at_step(number, stop):
    left = number

    def count(event):
        nonlocal left
        if event == "open" or event.startswith("os."):
            left -= 1
            if left == 0:
                stop()

    if not _hooks:
        sys.addaudithook(lambda event, arguments: _hooks[-1](event))
    _hooks.append(count)
    try:
        yield lambda: left <= 0
    finally:
        _hooks.append(lambda event: None)


def interrupt():
    raise KeyboardInterrupt


def killed_at_each_step(work, limit=1000):
    """Like `stopped_at_each_step`, each time in a child that is killed."""
    for number in range(1, limit):
        process = os.fork()
        if not process:
            with contextlib.suppress(BaseException):
                with _at_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                    work()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(process, 0)
        yield number
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return


def in_a_child(work):
    """Run in a child, whose limits and user may change; return its exit code."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    try:
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        code = 1
    os._exit(code)


def become_nobody():
    """Root may write anywhere, and so could not show that one may not."""
    if not os.geteuid():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
