"""A folder takes the place of another: what stays, what goes, and what interrupts it."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from keras_seqattn.errors import ExportError
from keras_seqattn.files import FolderTarget, carry, folders
from tests.files.places import (
    held,
    interrupt,
    killed_at_each_step,
    publish,
    put,
    stopped_at_each_step,
)

pytestmark = pytest.mark.backend_free

OLD = {"model": "old", "config": "old", "sub/pool": "old", "only": "old"}
NEW = {"model": "new", "config": "new", "sub/pool": "new", "more/a": "new"}
USERS = {"notes.md": "mine", "sub/notes.md": "mine", "a/b/c": "mine", "a/empty": None}
KEPT = {"config.kept": "changed", "more.kept": "a file"}


def test_a_new_folder_has_the_usual_permissions(tmp_path):
    publish(tmp_path / "a" / "b" / "out", NEW)
    assert held(tmp_path) == {f"a/b/out/{name}": text for name, text in NEW.items()}
    (tmp_path / "usual").mkdir()
    for name in ("a/b/out", "a/b/out/more"):
        assert (tmp_path / name).stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize("exchanges", [True, False])
def test_ours_is_replaced_and_all_else_stays(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(folders, "exchange", lambda first, second: False)
    out = tmp_path / "out"
    put(out, OLD | USERS)
    (out / "link").symlink_to("nowhere")
    (out / "folder-link").symlink_to("a")
    os.mkfifo(out / "pipe")
    out.chmod(0o700)
    inode = (out / "notes.md").stat().st_ino
    publish(out, NEW, owned=OLD)
    assert stat.S_ISFIFO((out / "pipe").lstat().st_mode)
    (out / "pipe").unlink()
    assert held(out) == NEW | USERS | {"link": "-> nowhere", "folder-link": "-> a"}
    assert (out / "notes.md").stat().st_ino == inode
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert os.listdir(tmp_path) == ["out"]


def test_what_is_in_the_way_is_kept_beside_with_a_warning(tmp_path):
    out = tmp_path / "out"
    put(out, OLD | {"config": "changed", "more": "a file", "config.kept": "a name that is taken"})
    with pytest.warns(UserWarning, match="config as config.kept2, more as more.kept"):
        publish(out, NEW, owned={"model", "sub/pool", "only"})
    kept = {"config.kept": "a name that is taken", "config.kept2": "changed"}
    assert held(out) == NEW | kept | {"more.kept": "a file"}


def test_a_folder_in_the_way_is_kept_as_a_whole(tmp_path):
    out = tmp_path / "out"
    put(out, {"model/a": "mine", "model/b/c": "mine", "other": "old"})
    with pytest.warns(UserWarning, match="model as model.kept"):
        publish(out, NEW, owned={"other", "model"})
    assert held(out) == NEW | {"model.kept/a": "mine", "model.kept/b/c": "mine"}


def test_a_claimed_name_is_kept_beside_though_nothing_new_is_there(tmp_path):
    put(tmp_path / "out", {"weights": "mine"})
    with pytest.warns(UserWarning, match="weights as weights.kept"):
        publish(tmp_path / "out", NEW, claimed=["weights"])
    assert held(tmp_path / "out") == NEW | {"weights.kept": "mine"}


def test_the_same_content_is_not_kept_twice(tmp_path, recwarn):
    put(tmp_path / "out", {"config": "new"})
    publish(tmp_path / "out", NEW)
    assert held(tmp_path / "out") == NEW and not recwarn


def test_files_are_copied_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(carry.os, "link", refuse)
    put(tmp_path / "out", OLD | USERS)
    publish(tmp_path / "out", NEW, owned=OLD)
    assert held(tmp_path / "out") == NEW | USERS


def test_what_comes_in_while_folders_change_places_stays(tmp_path, monkeypatch):
    """Between the look at the old folder and the exchange others may still write into it."""
    out, exchange = tmp_path / "out", folders.exchange

    def write_and_exchange(first, second):
        put(out, {"late": "mine", "late-folder/a": "mine", "sub/late": "mine"})
        (out / "only").write_text("changed at the last moment")
        return exchange(first, second)

    monkeypatch.setattr(folders, "exchange", write_and_exchange)
    put(out, OLD | USERS)
    publish(out, NEW, owned=OLD)
    late = {"late": "mine", "late-folder/a": "mine", "sub/late": "mine"}
    assert held(out) == NEW | USERS | late | {"only": "changed at the last moment"}


def test_a_link_to_a_folder_stays_and_its_target_is_replaced(tmp_path):
    put(tmp_path, {f"real/{name}": text for name, text in OLD.items()})
    (tmp_path / "link").symlink_to("real")
    publish(tmp_path / "link", NEW, owned=OLD)
    assert os.readlink(tmp_path / "link") == "real" and held(tmp_path / "real") == NEW


@pytest.mark.parametrize("exchanges", [True, False])
@pytest.mark.parametrize("is_there", [True, False])
def test_an_interrupt_at_any_step_leaves_one_whole_folder(
    quick_path, monkeypatch, exchanges, is_there
):
    if not exchanges:
        monkeypatch.setattr(folders, "exchange", lambda first, second: False)
    out, older = quick_path / "x" / "out", OLD if is_there else {}
    ends = set()
    if older:
        publish(out, older)
        put(out, USERS)
    for number in stopped_at_each_step(lambda: publish(out, NEW, owned=older), interrupt):
        ends.add(_whole(held(quick_path / "x"), older, number))
        if older:
            publish(out, older, owned=NEW)
        elif out.exists():
            publish(out, {}, owned=NEW)
            out.rmdir()
    assert ends == {True, False}


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_kill_at_any_step_leaves_one_whole_folder(quick_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(folders, "exchange", lambda first, second: False)
    out = quick_path / "out"
    publish(out, OLD)
    put(out, USERS)
    ends = set()
    for number in killed_at_each_step(lambda: publish(out, NEW, owned=OLD)):
        if exchanges:
            _whole({f"out/{name}": text for name, text in held(out).items()}, OLD, number)
        publish(quick_path / "beside", {"a": "a"})
        (quick_path / "beside" / "a").unlink()
        (quick_path / "beside").rmdir()
        ends.add(_whole(held(quick_path), OLD, number))
        publish(out, OLD, owned=NEW)
    assert ends == {True, False}


def _whole(found, older, number):
    """Whether the new folder is there; if neither it nor the old one is whole, the test fails."""
    users = USERS if older else {}
    new = {f"out/{name}": text for name, text in (NEW | users).items()}
    old = {f"out/{name}": text for name, text in (older | users).items()}
    assert found in (old, new), number
    return found == new


def test_threads_that_write_to_one_path_take_turns(tmp_path):
    out, faults = tmp_path / "out", []
    contents = [{"a": str(i) * 1000, f"b{i}": str(i)} for i in range(4)]

    def work(content):
        try:
            for _ in range(5):
                publish(out, content, owned={"a", "b0", "b1", "b2", "b3"})
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults and held(out) in contents and os.listdir(tmp_path) == ["out"]


def test_a_failure_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), FolderTarget(tmp_path / "a" / "b", ExportError).staged() as s:
        put(s, NEW)
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    put(tmp_path / "out", OLD)
    with pytest.raises(ExportError, match=r"out cannot be written \(No space left on device\)"):
        with FolderTarget(tmp_path / "out", ExportError).staged() as s:
            put(s, NEW)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(Path(s) / "model"))
    assert held(tmp_path / "out") == OLD and os.listdir(tmp_path) == ["out"]
