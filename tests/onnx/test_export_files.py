"""What an export replaces, and what it must leave alone."""

import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_seqattn import runtime
from keras_seqattn.errors import ExportError
from keras_seqattn.files import digest
from keras_seqattn.onnx import bundle as bundle_module
from keras_seqattn.onnx import export
from keras_seqattn.runtime.bundle import open_bundle
from tests.files.places import held, put
from tests.onnx import tiny

pytestmark = pytest.mark.backend_free


def model_of(value, **assets):
    """A model of one matrix, filled with a value, with files to put into its bundle."""
    x = keras.Input((None, 37), name="x")
    dense = keras.layers.Dense(41, use_bias=False, name="dense")
    model = keras.Model(x, dense(x), name="model")
    dense.kernel.assign(np.full((37, 41), value))
    model.assets = {name: text.encode() for name, text in assets.items()}
    return model


def write(path, value, **assets):
    export(model_of(value, **assets), path, verify=False)


def value_of(file):
    session = onnxruntime.InferenceSession(file)
    return session.run(None, {"x": np.ones((1, 1, 37), "float32")})[0][0, 0, 0] / 37


def refused(path, part):
    with pytest.raises(ExportError) as caught:
        write(path, 1)
    assert part in str(caught.value) and "\n" not in str(caught.value)


_SUM = "0" * 64


@pytest.mark.parametrize(
    "listing",
    [
        "{}",
        "[]",
        "3",
        "null",
        "",
        "{",
        "[" * 100_000,
        '{"files": {}}',
        '{"files": []}',
        '{"files": ["thesis.txt"]}',
        '{"files": {"thesis.txt": {}}}',
        '{"files": {"thesis.txt": {"size": "5", "sha256": "SUM"}}}',
        '{"files": {"thesis.txt": {"size": true, "sha256": "SUM"}}}',
        '{"files": {"thesis.txt": {"size": 5, "sha256": 7}}}',
        '{"files": {"../thesis.txt": {"size": 5, "sha256": "SUM"}}}',
        '{"files": {"/thesis.txt": {"size": 5, "sha256": "SUM"}}}',
    ],
)
def test_a_folder_with_any_parity_json_is_no_bundle(tmp_path, listing):
    listing = listing.replace("SUM", _SUM)
    put(tmp_path / "out", {"thesis.txt": "years", "parity.json": listing})
    refused(tmp_path / "out", "is not a bundle")
    assert held(tmp_path) == {"out/thesis.txt": "years", "out/parity.json": listing}


def test_a_list_of_files_that_are_not_there_takes_nothing_away(tmp_path):
    listing = {"files": {"thesis.txt": {"size": 5, "sha256": _SUM}}}
    put(tmp_path / "out", {"thesis.txt": "years", "parity.json": json.dumps(listing)})
    write(tmp_path / "out", 1)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years"
    assert value_of(tmp_path / "out" / "model.onnx") == 1


def test_an_export_over_a_bundle_replaces_its_files_only(tmp_path):
    out = tmp_path / "out"
    write(out, 1, **{"older.txt": "old", "1_Pooling/config.json": "{}"})
    users = {"notes.md": "mine", "data/a.csv": "mine", "1_Pooling/notes.md": "mine", "no": None}
    put(out, users)
    (out / "link").symlink_to("../elsewhere")
    write(out, 2, **{"newer.txt": "new"})
    found = {name for name in held(out)}
    ours = {"model.onnx", "config.json", "newer.txt", "parity.json"}
    assert found == ours | set(users) | {"link"}
    assert value_of(out / "model.onnx") == 2
    assert set(json.loads((out / "parity.json").read_text())["files"]) == ours - {"parity.json"}
    assert os.listdir(tmp_path) == ["out"]


def test_files_that_somebody_changed_are_kept(tmp_path):
    out = tmp_path / "out"
    write(out, 1, **{"a.json": "old", "b.json": "old"})
    put(out, {"a.json": "mine", "b.json": "mine", "c.json": "mine"})
    with pytest.warns(UserWarning, match="a.json as a.json.kept, c.json as c.json.kept"):
        write(out, 2, **{"a.json": "new", "c.json": "new"})
    found = held_texts(out)
    assert found["a.json"] == found["c.json"] == "new" and found["b.json"] == "mine"
    assert found["a.json.kept"] == found["c.json.kept"] == "mine"
    assert value_of(out / "model.onnx") == 2


def held_texts(folder):
    return {p.name: p.read_text() for p in folder.iterdir() if p.suffix in (".json", ".kept")}


def test_a_model_behind_a_link_is_replaced_there(tmp_path):
    write(tmp_path / "real", 1)
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", 2)
    assert os.readlink(tmp_path / "link") == "real"
    assert value_of(tmp_path / "real" / "model.onnx") == 2


@pytest.mark.parametrize("path", [3, None, b"out", "", "a\0.onnx", "a\n.onnx", "n" * 300 + ".onnx"])
def test_paths_where_nothing_can_be_written(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError) as caught:
        write(path, 1)
    assert str(caught.value).isprintable()
    assert os.listdir(tmp_path) == []


def test_a_folder_called_like_a_file(tmp_path):
    (tmp_path / "x.onnx").mkdir()
    refused(tmp_path / "x.onnx", "is a folder")
    refused(f"{tmp_path}/x.onnx/", "a slash")
    refused(f"{tmp_path}/y.onnx/", "a slash")
    (tmp_path / "gone.onnx").symlink_to("nowhere")
    refused(tmp_path / "gone.onnx", "leads nowhere")
    refused(tmp_path / "gone.onnx" / "x", "leads nowhere")


def test_a_parent_where_one_may_not_write():
    folder = Path(tempfile.mkdtemp())  # tmp_path may not even be read by others
    write(folder / "out", 1)
    write(folder / "a.onnx", 1)
    before = held(folder)
    user = os.geteuid()
    try:
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)
        for name in ("out", "new", "a.onnx", "new.onnx", "out/model.onnx"):
            refused(folder / name, "Permission denied")
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
    assert held(folder) == before
    shutil.rmtree(folder)


@pytest.fixture
def small_limits(monkeypatch):
    """Weights go beside the graph at once, as those of gigabytes do."""
    monkeypatch.setattr(bundle_module, "_PROTOBUF_BYTES", 1000)


def data_files(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith("data"))


def test_one_file_with_data_beside_it(tmp_path, small_limits):
    file = tmp_path / "x.onnx"
    put(tmp_path, {"x.onnx_data": "mine", "x.0123456789abcdef.onnx_data": "mine"})
    users = data_files(tmp_path)
    found = []
    for value in (1, 2, 2, 1):
        write(file, value)
        assert value_of(file) == value
        (data,) = set(data_files(tmp_path)) - set(users)
        found.append(data)
    assert found[0] == found[3] != found[1] == found[2]
    assert sorted(os.listdir(tmp_path)) == sorted(["x.onnx", found[3], *users])
    write(tmp_path / ("n" * 250 + ".onnx"), 3)
    assert value_of(tmp_path / ("n" * 250 + ".onnx")) == 3


def test_data_that_another_file_refers_to_or_that_changed_stays(tmp_path, small_limits):
    write(tmp_path / "x.onnx", 1)
    (tmp_path / "copy.onnx").write_bytes((tmp_path / "x.onnx").read_bytes())
    write(tmp_path / "x.onnx", 2)
    assert value_of(tmp_path / "copy.onnx") == 1
    (changed,) = (
        n for n in data_files(tmp_path) if n in (tmp_path / "x.onnx").read_text("latin-1")
    )
    (tmp_path / changed).write_text("mine")
    write(tmp_path / "x.onnx", 3)
    assert (tmp_path / changed).read_text() == "mine" and value_of(tmp_path / "x.onnx") == 3


def _as_older_versions_wrote_it(file, old, new):
    """Rename a file of weights, also in the graph that refers to it."""
    graph = onnx.load(file, load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entry.value.replace(old, new)
    onnx.save(graph, file)
    os.rename(file.parent / old, file.parent / new)


def test_data_of_a_bundle_have_the_name_that_browsers_fetch(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "_INLINE_BYTES", 1000)
    folder = tmp_path / "out"
    write(folder, 1, **{"note.txt": "-"})
    assert data_files(folder) == ["model.onnx_data"]
    config = json.loads((folder / "config.json").read_text())
    assert config["transformers.js_config"] == {"use_external_data_format": {"model.onnx": 1}}
    monkeypatch.setattr(bundle_module, "_INLINE_BYTES", 1 << 20)
    write(folder, 1)
    assert data_files(folder) == []
    assert "transformers.js_config" not in json.loads((folder / "config.json").read_text())


def test_a_bundle_of_an_older_version_opens_and_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "_INLINE_BYTES", 1000)
    folder = tmp_path / "out"
    write(folder, 1)
    _as_older_versions_wrote_it(folder / "model.onnx", "model.onnx_data", "model.onnx.data")
    listing = json.loads((folder / "parity.json").read_text())
    listing["files"] = {
        name: {"sha256": digest(folder / name), "size": (folder / name).stat().st_size}
        for name in ("config.json", "model.onnx", "model.onnx.data")
    }
    (folder / "parity.json").write_text(json.dumps(listing))
    x = np.ones((1, 1, 37), "float32")
    outputs = runtime.load(folder, check=True).run({"x": x})
    assert next(iter(outputs.values()))[0, 0, 0] == 37
    write(folder, 2)
    assert sorted(os.listdir(folder)) == [
        *("config.json", "model.onnx", "model.onnx_data", "parity.json")
    ]
    assert value_of(folder / "model.onnx") == 2


def test_data_that_an_older_version_put_beside_a_file_go(tmp_path, small_limits):
    file = tmp_path / "x.onnx"
    write(file, 1)
    (new,) = data_files(tmp_path)
    old = f"x.onnx.{new.split('.')[1]}.data"
    _as_older_versions_wrote_it(file, new, old)
    assert value_of(file) == 1
    write(file, 2)
    assert (
        value_of(file) == 2 and len(data_files(tmp_path)) == 1 and old not in data_files(tmp_path)
    )


def test_data_of_scans_and_branches_is_renamed_too(tmp_path, small_limits):
    from tests.onnx import recurrence

    export(recurrence.attentive_model(), tmp_path / "x.onnx", verify=False)
    onnxruntime.InferenceSession(tmp_path / "x.onnx")


def test_a_bundle_is_loaded_whole_while_it_is_replaced(tmp_path):
    models = [tiny.encoder("bert"), tiny.encoder("bert")]
    for seed, model in enumerate(models):
        model.assets = {"version.json": json.dumps([seed] * 1000).encode()}
    export(models[0], tmp_path / "out", verify=False)
    done = threading.Event()

    def replace():
        for number in range(6):
            export(models[number % 2], tmp_path / "out", verify=False)
        done.set()

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        loaded = 0
        while not done.is_set():
            assert runtime.load(tmp_path / "out", check=True).task == "embedding"
            loaded += 1
    finally:
        thread.join()
    assert loaded > 1
    open_bundle(tmp_path / "out", check=True)
