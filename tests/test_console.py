"""Streams and arguments of the command line that are not as they should be: one line each."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_seqattn import console
from keras_seqattn.cli import main
from keras_seqattn.errors import InputError

pytestmark = pytest.mark.backend_free

ROOT = Path(__file__).parents[1]


def line_of(capsys, code):
    err = capsys.readouterr().err
    assert code and err.count("\n") == 1 and err.startswith("error: ") and len(err) < 1100
    return err


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["nonsense"], ["generate"], ["generate", "x", "y", "--max-new-tokens", "x"]),
        *(["generate", "x", "y", "--top-k", "1" * 5000], ["embed", "x", "a\nb", "--nonsense\n"]),
        ["generate", "x", "y", "--temperature", "\udcff"],
    ],
    ids=lambda arguments: " ".join(arguments)[:30].encode("ascii", "replace").decode(),
)
def test_wrong_usage_is_one_line(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    line_of(capsys, ended.value.code)


@pytest.mark.parametrize("command", ["generate", "embed", "inspect", "verify", "summarize", "chat"])
@pytest.mark.parametrize("place", ["nowhere", "", "a\0b", "x" * 5000, "\udcff", "\ud800", __file__])
def test_bundles_that_are_none_are_one_line(command, place, capsys):
    more = [] if command in ("inspect", "verify", "chat") else ["the cat"]
    line_of(capsys, main([command, place, *more]))


@pytest.mark.parametrize("data", [None, b"\xff\xfe", b"a\n\xc3\x28\n"])
def test_input_that_is_no_text_is_said(data, monkeypatch):
    for read in (console.read_input, lambda: list(console.input_lines(False))):
        stream = None if data is None else io.TextIOWrapper(io.BytesIO(data), "utf-8")
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(InputError, match="standard input is"):
            read()
    if stream is not None:
        stream.close()
        with pytest.raises(InputError, match="closed"):
            console.has_terminal()


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a\nb"), MemoryError(), RecursionError("deep"), OSError(), KeyboardInterrupt()],
)
def test_whatever_goes_wrong_is_one_line(error, capsys):
    def command():
        raise error

    line_of(capsys, console.run(command))


def test_where_an_error_came_from_is_shown_if_asked(capsys, monkeypatch):
    monkeypatch.setenv(console.TRACEBACK, "1")

    def command():
        raise RuntimeError("internal fault")

    assert console.run(command) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and err.splitlines()[-1].startswith(
        "error: internal error, RuntimeError"
    )


def test_output_that_no_terminal_shows_is_escaped():
    code = "import sys; from keras_seqattn import console; console.run(lambda: print('\\udcff é'))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True
    )
    assert done.stdout == b"\\udcff \\xe9\n" and done.returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_an_error(unbuffered):
    code = (
        "import sys; from keras_seqattn import console; sys.exit(console.run(lambda: print('a')))"
    )
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            # An empty value means that Python keeps the output in a buffer, as usual.
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == 1 and done.stderr.splitlines()[0].startswith("error: ")
    assert "Traceback" not in done.stderr
