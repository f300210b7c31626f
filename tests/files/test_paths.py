"""Places where nothing can be written: one line each, and nothing is changed."""

import os
import resource
import shutil
import tempfile
from pathlib import Path

import pytest

from keras_seqattn.errors import ExportError
from keras_seqattn.files import FileTarget, FolderTarget
from tests.files.places import (
    become_nobody,
    held,
    in_a_child,
    publish,
    publish_file,
    put,
)

pytestmark = pytest.mark.backend_free


def refused(call, *parts):
    """Assert that a call raises one line that holds the parts."""
    with pytest.raises(ExportError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text and text.isprintable() and len(text) < 1000
    for part in parts:
        assert part in text


@pytest.mark.parametrize("target", [FileTarget, FolderTarget])
@pytest.mark.parametrize(
    "path, part",
    [
        (3, "not int"),
        (None, "not NoneType"),
        (b"out", "not bytes"),
        (["out"], "not list"),
        ("", "empty"),
        ("a\0b", "control character"),
        ("a\nb", "line break"),
        ("a\u2028b", "line break"),
        ("a\ud800b", "half a character"),
        ("a\udcffb", "half a character"),
        ("n" * 256, "256 bytes"),
        ("\u00e9" * 128, "256 bytes"),
        ("new/" + "n" * 300 + "/x", "300 bytes"),
        ("n/" * 3000 + "out", "longer than systems allow"),
        ("file/out", "is a file"),
        ("file/a/b/out", "is a file"),
        ("dangling", "a link that leads nowhere (to 'gone')"),
        ("loop", "link"),
        ("dangling/out", "dangling is a link that leads nowhere"),
        ("through-loop/out", "leads nowhere"),
        (".", "folder"),
        ("..", "folder"),
        ("/", ""),
        ("/proc", ""),
        ("/proc/out", ""),
    ],
)
def test_paths_that_cannot_be_written(tmp_path, monkeypatch, target, path, part):
    monkeypatch.chdir(tmp_path)
    put(tmp_path, {"file": "mine", "inner/a": "mine"})
    (tmp_path / "dangling").symlink_to("gone")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "through-loop").symlink_to("loop")
    before = held(tmp_path)
    refused(lambda: _write(target, path), part)
    assert held(tmp_path) == before


def _write(target, path):
    place = target(path, ExportError)
    with place.staged() as folder:
        put(folder, {place.name or "a": "new"})


def test_a_file_where_a_folder_is_to_be_and_the_reverse(tmp_path):
    put(tmp_path, {"file": "mine", "folder/a": "mine"})
    refused(lambda: publish(tmp_path / "file", {"a": "a"}), "is a file: name a folder")
    refused(lambda: publish_file(tmp_path / "folder", "a"), "is a folder: name a file")
    refused(lambda: publish_file(f"{tmp_path}/new/", "a"), "ends in a slash")
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: publish_file(tmp_path / "pipe", "a"), "not a regular file")


def test_the_folder_one_works_in_is_not_replaced(tmp_path, monkeypatch):
    put(tmp_path, {"out/sub/a": "mine"})
    monkeypatch.chdir(tmp_path / "out" / "sub")
    refused(lambda: publish(tmp_path / "out", {"a": "a"}), "the current working folder")
    refused(lambda: publish(".", {"a": "a"}), "the folder you work in")
    refused(lambda: publish("..", {"a": "a"}), "the folder you work in")
    publish("new", {"a": "a"})
    assert held(tmp_path) == {"out/sub/a": "mine", "out/sub/new/a": "a"}


@pytest.mark.parametrize("name", ["n" * 255, "\u00e9" * 127, " ", "-x", "~", "a'\"b", "\u00a0"])
def test_every_legal_name_can_be_written(tmp_path, name):
    for text in ("old", "new"):
        publish(tmp_path / "folders" / name, {"a": text}, owned=["a"])
        publish_file(tmp_path / "files" / name, text)
    assert held(tmp_path) == {f"folders/{name}/a": "new", f"files/{name}": "new"}


def test_slashes_and_dots_are_no_names(tmp_path):
    publish(f"{tmp_path}/a/../b/./out//", {"a": "a"})
    assert held(tmp_path) == {"b/out/a": "a"}


def test_a_long_name_is_cut_where_something_is_kept_beside(tmp_path):
    name = "\u00e9" * 127
    put(tmp_path / "out", {name: "mine"})
    with pytest.warns(UserWarning, match="kept"):
        publish(tmp_path / "out", {name: "new"})
    assert held(tmp_path / "out") == {name: "new", "\u00e9" * 125 + ".kept": "mine"}


def test_a_full_disk_changes_nothing(tmp_path):
    put(tmp_path, {"out/a": "old", "file": "old"})

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        refused(lambda: publish(tmp_path / "out", {"a": "n" * 5000}), "choose a place", "larger")
        refused(lambda: publish_file(tmp_path / "file", "n" * 5000), "choose a place", "larger")

    assert in_a_child(work) == 0
    assert held(tmp_path) == {"out/a": "old", "file": "old"}


def test_a_place_where_one_may_not_write():
    folder = Path(tempfile.mkdtemp())
    put(folder, {"out/a": "old", "file": "old"})

    def work():
        become_nobody()
        refused(lambda: publish(folder / "out", {"a": "a"}), "Permission denied", "may write")
        refused(lambda: publish(folder / "new", {"a": "a"}), "Permission denied", "may write")
        refused(lambda: publish_file(folder / "file", "a"), "Permission denied", "may write")
        refused(lambda: publish_file(folder / "a" / "b", "a"), "Permission denied", "may write")

    try:
        folder.chmod(0o555)
        assert in_a_child(work) == 0
        assert held(folder) == {"out/a": "old", "file": "old"}
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_folders_in_which_nobody_may_write_stay_as_they_are():
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)

    def work():
        become_nobody()
        put(folder / "out", {"a": "old", "locked/inner/b": "mine"})
        for name in ("locked/inner", "locked"):
            (folder / "out" / name).chmod(0o555)
        publish(folder / "out", {"a": "new"}, owned=["a"])
        assert held(folder) == {"out/a": "new", "out/locked/inner/b": "mine"}
        assert (folder / "out" / "locked").stat().st_mode & 0o777 == 0o555

    try:
        assert in_a_child(work) == 0
    finally:
        shutil.rmtree(folder)
