"""A file takes the place of another, with files beside it that it refers to."""

import os
import stat

import pytest

from keras_seqattn.errors import ExportError
from tests.files.places import (
    held,
    interrupt,
    killed_at_each_step,
    publish_file,
    put,
    stopped_at_each_step,
)

pytestmark = pytest.mark.backend_free

USERS = {"notes.md": "mine", "graph.data": "mine", "sub/a": "mine"}
OLD = {"graph": "needs old.data", "old.data": "old"}
NEW = {"graph": "needs new.data", "new.data": "new"}


def publish_old(folder):
    publish_file(folder / "graph", OLD["graph"], {"old.data": "old"}, stale=["new.data"])


def publish_new(folder):
    publish_file(folder / "graph", NEW["graph"], {"new.data": "new"}, stale=["old.data"])


def test_a_file_and_its_data_replace_the_older_ones(tmp_path):
    put(tmp_path, USERS)
    publish_old(tmp_path)
    assert held(tmp_path) == USERS | OLD
    (tmp_path / "graph").chmod(0o600)
    publish_new(tmp_path)
    assert held(tmp_path) == USERS | NEW
    assert stat.S_IMODE((tmp_path / "graph").stat().st_mode) == 0o600


def test_the_same_data_is_left_where_it_is(tmp_path):
    publish_new(tmp_path)
    inode = (tmp_path / "new.data").stat().st_ino
    publish_file(tmp_path / "graph", "again", {"new.data": "new"}, stale=["new.data"])
    assert held(tmp_path) == {"graph": "again", "new.data": "new"}
    assert (tmp_path / "new.data").stat().st_ino == inode


def test_another_file_of_the_data_s_name_is_not_replaced(tmp_path):
    put(tmp_path, OLD | {"new.data": "mine"})
    with pytest.raises(ExportError, match="new.data beside it is another file: move it away"):
        publish_new(tmp_path)
    assert held(tmp_path) == OLD | {"new.data": "mine"}


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    put(tmp_path, {"real/graph": "old"})
    (tmp_path / "link").symlink_to("real/graph")
    publish_file(tmp_path / "link", "new")
    assert held(tmp_path) == {"link": "-> real/graph", "real/graph": "new"}


def test_an_interrupt_at_any_step_leaves_one_whole_result(quick_path):
    put(quick_path, USERS)
    publish_old(quick_path)
    ends = []
    for number in stopped_at_each_step(lambda: publish_new(quick_path), interrupt):
        found = held(quick_path)
        assert found in (USERS | OLD, USERS | NEW), number
        ends.append(found == USERS | NEW)
        publish_old(quick_path)
    assert set(ends) == {True, False}


def test_a_kill_at_any_step_leaves_one_whole_result(quick_path):
    put(quick_path, USERS)
    publish_old(quick_path)
    ends = []
    for number in killed_at_each_step(lambda: publish_new(quick_path)):
        found = held(quick_path)
        whole = [w for w in (OLD, NEW) if w.items() <= found.items()]
        assert whole and found["graph"] == whole[0]["graph"] and USERS.items() <= found.items()
        publish_file(quick_path / "beside", "a")
        os.unlink(quick_path / "beside")
        assert held(quick_path) == USERS | whole[0], number
        ends.append(whole[0] == NEW)
        publish_old(quick_path)
    assert set(ends) == {True, False}
