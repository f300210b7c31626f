"""The process around a command: its arguments, its streams, and errors of one line."""

import argparse
import os
import sys
import traceback
import warnings

from keras_seqattn.errors import InputError, SeqAttnError

# If this variable is set and not empty, errors have a traceback.
TRACEBACK = "KERAS_SEQATTN_TRACEBACK"
_LONGEST = 1000


class Parser(argparse.ArgumentParser):
    """A parser whose error is one line.

    Attributes:
        notes: None, or a function that returns the last paragraph of the help.
    """

    notes = None

    def format_help(self):
        if self.notes is not None:
            self.epilog = self.notes()
        return super().format_help()

    def error(self, message):
        _complain(f"{message} (see {self.prog} --help)")
        self.exit(2)


def run(command):
    """Run a command; every error is one line on standard error.

    Args:
        command: callable without arguments that returns an exit code or None.

    Returns:
        int, the exit code of the command, or 1 after an error.
    """
    _tolerate(sys.stdout)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            code = command() or 0
            # If the output cannot be written, this must fail here and not at the interpreter's end.
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
        except BrokenPipeError:
            _abandon_output()
            return 1
        except KeyboardInterrupt:
            message = "interrupted"
        except (SeqAttnError, OSError, ModuleNotFoundError) as error:
            message = str(error) or type(error).__name__
            _show_traceback()
        except MemoryError:
            message = "there is not enough memory"
            _show_traceback()
        except Exception as error:  # every other error is one line, too
            message = (
                f"internal error, {type(error).__name__}: {error} (set {TRACEBACK}=1 for more)"
            )
            _show_traceback()
    _complain(message)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # Python would try it again at its end, and exit with a code of its own.
        _abandon_output()
    return 1


def read_input():
    """All text of standard input."""
    return _from_input(lambda stream: stream.read())


def input_lines(is_interactive):
    """Yield the lines of standard input with text; in a terminal, an empty line ends the input."""
    while True:
        if is_interactive:
            print("> ", end="", file=sys.stderr, flush=True)
        line = _from_input(lambda stream: stream.readline())
        if not line or (is_interactive and not line.strip()):
            return
        if line.strip():
            yield line.strip()


def has_terminal():
    """Whether standard input is a terminal."""
    return _from_input(lambda stream: stream.isatty())


def _from_input(read):
    if sys.stdin is None or sys.stdin.closed:
        raise InputError("standard input is closed: give it text, or the text as an argument")
    try:
        return read(sys.stdin)
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not {error.encoding} text: {error.reason}") from None


def _tolerate(stream):
    """Write bytes of file names that are not text, and unknown characters, as \\x.."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None and stream.errors == "strict":
        reconfigure(errors="backslashreplace")


def _abandon_output():
    """The reader of our output is gone. Prevent a second error when Python closes stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message, *_):
    print(f"warning: {_printable(' '.join(str(message).split()))}", file=sys.stderr)


def _show_traceback():
    if os.environ.get(TRACEBACK):
        traceback.print_exc()


def _complain(message):
    line = " ".join(str(message).split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
    print(f"error: {_printable(line)}", file=sys.stderr)


def _printable(text):
    """`text` in a form that UTF-8 can hold, even with file names of any bytes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
