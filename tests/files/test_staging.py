"""Leftovers: those of dead processes go, those of living ones and of users stay."""

import os
import signal

import pytest

from keras_seqattn.errors import ExportError
from keras_seqattn.files import FolderTarget
from tests.files.places import held, publish, put

pytestmark = pytest.mark.backend_free


def staging_folders(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith(".seqattn-"))


def start_writer(path):
    """A process that is in the middle of writing; it ends when the returned pipe is closed."""
    ready, told = os.pipe()
    wait, end = os.pipe()
    process = os.fork()
    if not process:
        os.close(end)
        with FolderTarget(path, ExportError).staged() as folder:
            put(folder, {"a": "of the child"})
            os.write(told, b"1")
            os.read(wait, 1)
        os._exit(0)
    os.read(ready, 1)
    os.close(wait)
    return process, end


def test_the_folder_of_a_killed_process_is_removed_by_the_next_one(tmp_path):
    process, _ = start_writer(tmp_path / "out")
    assert len(staging_folders(tmp_path)) == 1
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert len(staging_folders(tmp_path)) == 1
    publish(tmp_path / "another", {"a": "a"})
    assert held(tmp_path) == {"another/a": "a"}


def test_the_folder_of_a_living_process_is_left_alone(tmp_path):
    process, end = start_writer(tmp_path / "out")
    publish(tmp_path / "another", {"a": "a"})
    assert len(staging_folders(tmp_path)) == 1
    os.close(end)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert held(tmp_path) == {"another/a": "a", "out/a": "of the child"}


@pytest.mark.parametrize(
    "files",
    [
        {".seqattn-0123456789abcdef/new/a": "mine"},
        {".seqattn-0123456789abcdef/owner": "mine", ".seqattn-0123456789abcdef/new/a": "mine"},
        {".seqattn-0123456789abcdef/owner": "", ".seqattn-0123456789abcdef/new/a": "mine"},
        {".seqattn-0123456789abcdef/owner/a": "mine"},
        {".seqattn-mine/owner": "mine", ".seqattn-mine2": None},
        {".seqattn-0123456789abcdef": "a file"},
        {".seqattn-turn": "mine"},
    ],
)
def test_what_only_looks_like_ours_is_left_alone(tmp_path, files):
    put(tmp_path, files)
    publish(tmp_path / "out", {"a": "a"})
    assert held(tmp_path) == files | {"out/a": "a"}


def test_a_link_that_looks_like_ours_is_left_alone(tmp_path):
    process, _ = start_writer(tmp_path / "out")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    (name,) = staging_folders(tmp_path)
    (tmp_path / name).rename(tmp_path / "moved")
    (tmp_path / name).symlink_to("moved")
    publish(tmp_path / "out", {"a": "a"})
    assert os.path.islink(tmp_path / name) and (tmp_path / "moved" / "new" / "a").exists()
