import json
import os

import numpy as np
import pytest

from keras_seqattn.errors import CheckpointError
from keras_seqattn.weights.directory import INDEX, WEIGHTS, write_directory
from keras_seqattn.weights.formats import open_checkpoint
from tests.files.places import killed_at_each_step

pytestmark = pytest.mark.backend_free
TENSORS = {
    name: np.random.default_rng(len(name)).normal(size=shape).astype(np.float32)
    for name, shape in {"a": (3, 5), "bb": (7,), "ccc": (2, 11)}.items()
}
SHAPES = {name: value.shape for name, value in TENSORS.items()}


def _write(path, **options):
    assets = {"tokenizer.json": b"{}", "1_Pooling/config.json": b"{}"}
    write_directory(path, {"model_type": "x"}, assets, SHAPES, TENSORS.__getitem__, **options)
    return path


def _assert_holds_all(path):
    checkpoint = open_checkpoint(path)
    assert checkpoint.shapes == SHAPES
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(checkpoint.read(name), value)
    return checkpoint


def test_single_file_round_trip(tmp_path):
    checkpoint = _assert_holds_all(_write(tmp_path / "model"))
    assert checkpoint.config == {"model_type": "x"}
    assert set(checkpoint.assets) == {"tokenizer.json", "1_Pooling/config.json"}
    assert not (tmp_path / "model" / INDEX).exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_weights_above_the_limit_are_split_and_indexed(tmp_path):
    _write(tmp_path / "model", shard_bytes=90)  # a and bb fill 88 bytes
    index = json.loads((tmp_path / "model" / INDEX).read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index["weight_map"] == {"a": first, "bb": first, "ccc": second}
    assert index["metadata"]["total_size"] == 4 * (15 + 7 + 22)
    _assert_holds_all(tmp_path / "model")


def test_overwriting_drops_older_weights_and_keeps_other_files(tmp_path):
    _write(tmp_path / "model", shard_bytes=90)
    (tmp_path / "model" / "notes.txt").write_text("mine")
    _write(tmp_path / "model")
    weights = sorted(path.name for path in (tmp_path / "model").glob("*.safetensors*"))
    assert weights == [WEIGHTS]
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    _assert_holds_all(tmp_path / "model")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_write_killed_at_any_step_leaves_one_whole_directory(tmp_path):
    path = tmp_path / "model"

    def write(version):
        config = {"model_type": "x", "version": version}
        shard_bytes = 90 if version else 1 << 30
        write_directory(
            path, config, {}, SHAPES, lambda name: TENSORS[name] + version, shard_bytes=shard_bytes
        )

    write(0)
    (path / "notes.md").write_text("mine")
    found = set()
    for number in killed_at_each_step(lambda: write(1)):
        checkpoint = open_checkpoint(path)
        version = checkpoint.config["version"]
        for name, value in TENSORS.items():
            np.testing.assert_array_equal(checkpoint.read(name), value + version, str(number))
        assert (path / "notes.md").read_text() == "mine"
        found.add(version)
        write(0)
        assert os.listdir(tmp_path) == ["model"], number
    assert found == {0, 1}


def test_a_failed_write_leaves_the_older_directory_whole(tmp_path):
    _write(tmp_path / "model")

    def fail(name):
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        write_directory(tmp_path / "model", {}, {}, SHAPES, fail)
    _assert_holds_all(tmp_path / "model")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_only_weights_of_the_older_model_are_dropped(tmp_path):
    path = _write(tmp_path / "model", shard_bytes=90)
    users = [
        "notes.md",
        "adapter_model.safetensors",
        "model-of-mine.safetensors",
        "model-00007-of-00009.safetensors",
        "sub/model.safetensors",
    ]
    (path / "sub").mkdir()
    for name in users:
        (path / name).write_text("mine")
    for shard_bytes in (1000, 50, 90, 1000):
        _write(path, shard_bytes=shard_bytes)
        _assert_holds_all(path)
        assert all((path / name).read_text() == "mine" for name in users)
    found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    ours = {"config.json", WEIGHTS, "tokenizer.json", "1_Pooling/config.json"}
    assert found == ours | set(users)


@pytest.mark.parametrize("config", [None, "{}", "[]", "{", '{"model_type": 3}'])
def test_files_that_are_no_model_s_are_kept(tmp_path, config):
    """A config.json is not always a model's; nor is a model.safetensors."""
    path = tmp_path / "project"
    path.mkdir()
    mine = {"config.json": config, WEIGHTS: "mine", "tokenizer.json": "mine"}
    mine = {name: text for name, text in mine.items() if text is not None}
    for name, text in mine.items():
        (path / name).write_text(text)
    with pytest.warns(UserWarning, match="model.safetensors as model.safetensors.kept"):
        _write(path, shard_bytes=90)
    _assert_holds_all(path)
    assert {name: (path / f"{name}.kept").read_text() for name in mine} == mine


def test_a_bundle_is_not_written_over(tmp_path):
    listing = {"files": {"model.onnx": {"size": 1, "sha256": "0" * 64}}}
    (tmp_path / "parity.json").write_text(json.dumps(listing))
    with pytest.raises(CheckpointError, match="exported bundle.*save elsewhere"):
        _write(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["parity.json"]


@pytest.mark.parametrize("path", [3, None, b"x", "", ".", "/", "a\nb", "a\0b", "n" * 256, "file/x"])
def test_places_where_nothing_can_be_written(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError) as caught:
        _write(path)
    assert str(caught.value).isprintable()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failing_disk_is_one_line(tmp_path):
    _write(tmp_path / "model")

    def fail(name):
        raise OSError("7 items requested, 0 written")

    with pytest.raises(CheckpointError, match="cannot be written .7 items requested, 0 written"):
        write_directory(tmp_path / "model", {}, {}, SHAPES, fail)
    _assert_holds_all(tmp_path / "model")


@pytest.mark.parametrize("name", ["../outside.txt", "/outside.txt", "a/../../outside.txt"])
def test_assets_cannot_be_written_outside(tmp_path, name):
    with pytest.raises(CheckpointError, match="leads out of the directory"):
        write_directory(tmp_path / "model", {}, {name: b""}, SHAPES, TENSORS.__getitem__)
    assert not (tmp_path / "model").exists()


def _edit_index(path, edit):
    _write(path, shard_bytes=90)
    index = json.loads((path / INDEX).read_text())
    edit(index)
    (path / INDEX).write_text(json.dumps(index))


def test_an_index_that_names_a_missing_shard_is_refused(tmp_path):
    _edit_index(tmp_path, lambda index: index["weight_map"].update(ccc="model-00003.safetensors"))
    with pytest.raises(CheckpointError, match="names the shard 'model-00003.safetensors'"):
        open_checkpoint(tmp_path)


def test_an_index_that_names_a_missing_tensor_is_refused(tmp_path):
    shard = "model-00001-of-00002.safetensors"
    _edit_index(tmp_path, lambda index: index["weight_map"].update(ghost=shard))
    with pytest.raises(CheckpointError, match="tensor 'ghost' is not in model-00001"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/passwd", "a/../../x.safetensors"])
def test_an_index_that_leads_outside_is_refused(tmp_path, shard):
    _edit_index(tmp_path, lambda index: index["weight_map"].update(ccc=shard))
    with pytest.raises(CheckpointError, match="leads out of the directory"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": {"a": 7}}'])
def test_an_index_that_is_no_map_is_refused(tmp_path, index):
    _write(tmp_path, shard_bytes=90)
    (tmp_path / INDEX).write_text(index)
    with pytest.raises(CheckpointError, match=INDEX):
        open_checkpoint(tmp_path)


def test_pickled_weights_are_refused_with_the_remedy(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(CheckpointError, match="Pickled weights .* are not read"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_damaged_config_is_refused(tmp_path, text):
    _write(tmp_path)
    (tmp_path / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match="config.json"):
        open_checkpoint(tmp_path)


def test_paths_that_are_no_checkpoint_are_refused(tmp_path):
    (tmp_path / "model.txt").write_text("")
    with pytest.raises(CheckpointError, match="no such file or directory"):
        open_checkpoint(tmp_path / "gone")
    with pytest.raises(CheckpointError, match="not a checkpoint this library reads"):
        open_checkpoint(tmp_path / "model.txt")
    with pytest.raises(CheckpointError, match="no config.json"):
        open_checkpoint(tmp_path)


def test_links_in_the_directory_are_followed_as_caches_of_downloads_need(tmp_path):
    _write(tmp_path / "blobs", shard_bytes=90)
    (tmp_path / "snapshot").mkdir()
    for file in (tmp_path / "blobs").rglob("*"):
        if file.is_file():
            link = tmp_path / "snapshot" / file.relative_to(tmp_path / "blobs")
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(file)
    _assert_holds_all(tmp_path / "snapshot")


def _fifo(path):
    os.mkfifo(path)


def _loop(path):
    path.symlink_to(path)


def _device(path):
    path.symlink_to("/dev/zero")


def _dangling(path):
    path.symlink_to("gone")


@pytest.mark.parametrize("make", [os.mkdir, _fifo, _loop, _device, _dangling])
@pytest.mark.parametrize(
    "name", ["config.json", WEIGHTS, INDEX, "model-00001-of-00002.safetensors", "tokenizer.json"]
)
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path, name, make):
    _write(tmp_path, shard_bytes=90 if name != WEIGHTS else 10**6)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(CheckpointError, match="is not a file, nor a link to one"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS, INDEX])
def test_files_too_large_to_read_are_refused_unread(tmp_path, name):
    _write(tmp_path, shard_bytes=90 if name == INDEX else 10**6)
    with open(tmp_path / name, "r+b") as file:
        file.truncate(10**10)
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", WEIGHTS, INDEX])
def test_empty_files_are_refused(tmp_path, name):
    _write(tmp_path, shard_bytes=90 if name == INDEX else 10**6)
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("shard", ["", ".", "x" * 10**5, "\u202e", "a\nb", "config.json"])
def test_strange_names_of_shards_are_refused_in_one_short_line(tmp_path, shard):
    _edit_index(tmp_path, lambda index: index["weight_map"].update(ccc=shard))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path)
    assert len(str(caught.value)) < 500 and "\n" not in str(caught.value)


def test_an_index_of_very_many_tensors_is_refused(tmp_path):
    names = {f"t{number}": "model-00001-of-00002.safetensors" for number in range(50_001)}
    _edit_index(tmp_path, lambda index: index.update(weight_map=names))
    with pytest.raises(CheckpointError, match="names 50001 tensors"):
        open_checkpoint(tmp_path)


def test_not_a_file_at_all(tmp_path):
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match="neither a file nor a directory"):
        open_checkpoint(tmp_path / "model.gguf")
