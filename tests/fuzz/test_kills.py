"""Processes killed while they write: a path always holds one whole result, old or new.

`pytest tests/fuzz/test_kills.py --cases 800` kills 2,400 times. A child is killed at a random
instant, or just before the n-th thing that it asks of the file system, for a random n.
"""

import contextlib
import dataclasses
import functools
import json
import os
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seqattn.errors import ExportError
from keras_seqattn.files import FileTarget, digest, read_settled
from keras_seqattn.files import folders as files_folders
from keras_seqattn.onnx import bundle, export
from keras_seqattn.runtime.external_data import external_files
from keras_seqattn.weights.directory import WEIGHTS, write_directory
from keras_seqattn.weights.formats import open_checkpoint

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]

KILLS = 3  # one after the other, so that what recovers from a kill is killed as well
_SECONDS = 60  # of a machine that is busy with other things
_STEPS = ("open", "os.", "shutil.")
_USERS = {"notes.md": b"mine", "drafts/a/thesis.txt": b"years of work", "model.onnx_data.old": b""}


def test_a_killed_writer_leaves_one_whole_result(fuzz):
    fuzz(killed_case, short=12, seconds=_SECONDS)


def test_two_writers_and_a_reader(fuzz):
    fuzz(together_case, short=3, seconds=_SECONDS)


def killed_case(random, folder):
    kind = (_bundle, _bundle_without_exchange, _single, _save)[random.integers(4)]
    exchange = files_folders.exchange
    try:
        _killed(kind(folder), random)
    finally:
        files_folders.exchange = exchange
    return kind.__name__.strip("_")


def together_case(random, folder):
    """Two processes write to one path, a third one reads: all succeed, and the result is whole."""
    kind = (_bundle, _single, _save)[random.integers(3)](folder)
    kind.write(0)
    _put_users_files(kind)
    places = _entries(kind)
    processes = [_fork(lambda v=v: [kind.write(v) for _ in range(5)]) for v in (0, 1)]
    if kind.users == kind.path:
        processes.append(
            _fork(lambda: [read_settled(kind.path, lambda: _read(kind)) for _ in range(20)])
        )
    assert [os.waitpid(process, 0)[1] for process in processes] == [0] * len(processes)
    kind.version()
    _check_users_files(kind)
    kind.write(0)
    assert _entries(kind) == places


@dataclasses.dataclass
class _Kind:
    """What is written.

    Args:
        path: of the result.
        write: function(version) that writes it; there are the versions 0 and 1.
        version: function that returns what is there, and fails unless it is whole.
        users: pathlib.Path of the folder with the user's files.
        recovers: whether the path may be empty until something is written beside it.
    """

    path: Path
    write: object
    version: object
    users: Path
    recovers: bool = False


@functools.cache
def _models():
    """Two models of the same form, whose files are beside the graph in all sizes."""
    bundle._INLINE_BYTES = bundle._PROTOBUF_BYTES = 1000
    found = []
    for version in range(2):
        x = keras.Input((None, 37), name="x")
        dense = keras.layers.Dense(41, name="dense")
        model = keras.Model(x, dense(x), name="model")
        dense.kernel.assign(np.full((37, 41), version + 1.0))
        content = json.dumps(version).encode() * 3000
        model.assets = {"1_Pooling/config.json": content, f"only-{version}/a/b.txt": content}
        found.append(model)
    return found


def _export(version, path):
    export(_models()[version], path, verify=False)


def _bundle(folder):
    path = folder / "bundle"

    def version():
        listed = json.loads((path / "parity.json").read_text())["files"]
        for name, entry in listed.items():
            assert digest(path / name) == entry["sha256"], name
        assert {"model.onnx", "model.onnx_data"} <= set(listed)
        found = int(np.fromfile(path / "model.onnx_data", "float32")[0]) - 1
        there = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
        assert there - {*_USERS, "link"} == {*listed, "parity.json"}
        assert f"only-{found}/a/b.txt" in there and not (path / f"only-{1 - found}").exists()
        return found

    _models()
    return _Kind(path, functools.partial(_export, path=path), version, path)


def _bundle_without_exchange(folder):
    files_folders.exchange = lambda first, second: False
    return dataclasses.replace(_bundle(folder), recovers=True)


def _single(folder):
    path = folder / "model.onnx"

    def version():
        (data,) = external_files(path)
        assert digest(folder / data).startswith(data.split(".")[-2])
        return int(np.fromfile(folder / data, "float32")[0]) - 1

    _models()
    return _Kind(path, functools.partial(_export, path=path), version, folder)


def _save(folder):
    path = folder / "model"
    shapes = {f"layer.{i}": (50, i + 1) for i in range(6)}

    def write(version):
        def read(name):
            return np.full(shapes[name], version, "float32")

        config = {"model_type": "x", "version": version}
        assets = {"tokenizer.json": b"[%d]" % version}
        write_directory(path, config, assets, shapes, read, shard_bytes=(1 << 30, 900)[version])

    def version():
        checkpoint = open_checkpoint(path)
        assert checkpoint.shapes == shapes
        found = checkpoint.config["version"]
        assert checkpoint.assets["tokenizer.json"] == b"[%d]" % found
        assert all((checkpoint.read(name) == found).all() for name in shapes)
        weights = {p.name for p in path.glob("*.safetensors")}
        assert weights == {WEIGHTS} if found == 0 else WEIGHTS not in weights and len(weights) > 1
        return found

    return _Kind(path, write, version, path)


def _killed(kind, random):
    kind.write(0)
    _put_users_files(kind)
    places = _entries(kind)
    for _ in range(KILLS):
        _kill_a_writer(kind.write, random)
        if kind.recovers:
            with FileTarget(kind.path.parent / "beside", ExportError).staged() as staged:
                (Path(staged) / "beside").touch()
            (kind.path.parent / "beside").unlink()
        kind.version()
        _check_users_files(kind)
    kind.write(0)
    assert kind.version() == 0
    _check_users_files(kind)
    assert _entries(kind) == places


def _kill_a_writer(write, random):
    started, told = os.pipe()
    process = os.fork()
    if not process:
        with contextlib.suppress(BaseException):
            os.close(started)
            if random.random() < 0.5:
                _kill_before_step(int(random.integers(1, 400)))
            os.write(told, b"1")
            for version in range(1, 1000):
                write(version % 2)
        os._exit(1)
    os.close(told)
    os.read(started, 1)
    os.close(started)
    deadline = time.monotonic() + random.uniform(0, 0.2)
    while time.monotonic() < deadline and not os.waitid(
        os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT
    ):
        time.sleep(0.001)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    assert os.WIFSIGNALED(status), "the writer failed before it was killed"


def _kill_before_step(number):
    left = number

    def count(event, arguments):
        nonlocal left
        if event.startswith(_STEPS):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def _read(kind):
    try:
        return kind.version()
    except AssertionError as error:  # what the library's own readers raise as theirs
        raise ExportError("not whole") from error


def _fork(work):
    process = os.fork()
    if process:
        return process
    try:
        work()
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def _put_users_files(kind):
    for name, content in _USERS.items():
        path = kind.users / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (kind.users / "empty").mkdir()
    (kind.users / "link").symlink_to("notes.md")
    (kind.path.parent / ".seqattn-mine").mkdir()


def _check_users_files(kind):
    for name, content in _USERS.items():
        assert (kind.users / name).read_bytes() == content, name
    assert (kind.users / "empty").is_dir() and os.readlink(kind.users / "link") == "notes.md"
    assert (kind.path.parent / ".seqattn-mine").is_dir()


def _entries(kind):
    return sorted(p.relative_to(kind.path.parent).as_posix() for p in kind.path.parent.rglob("*"))
