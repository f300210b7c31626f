"""Each example in its short form."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_seqattn.errors import DataError

FOLDER = Path(__file__).parents[1] / "examples"


def run(name, **options):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(short=True, **options)


@pytest.mark.slow
def test_attention_in_your_model():
    # Guessing gives 0.5, and the letters alone about 0.8.
    assert run("attention_in_your_model") > 0.85


@pytest.mark.slow
@pytest.mark.only("torch")
def test_chat(capsys):
    messages = run("chat")
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert "Paris" in messages[1]["content"] and messages[1]["content"] in capsys.readouterr().out


@pytest.mark.slow
def test_semantic_search():
    found = run("semantic_search", queries=("make a file smaller",))
    assert {"gzip", "bz2"} & set(found["make a file smaller"])


@pytest.mark.slow
@pytest.mark.backend_free
def test_serve():
    france, italy, begun, over_http = run("serve")
    assert "Paris" in france and "Rome" in italy
    assert france == over_http and france.startswith(begun) and begun != france


@pytest.mark.slow
@pytest.mark.only("jax")
def test_train_llama(tmp_path, capsys):
    losses = run("train_llama", folder=tmp_path)
    # ln(128) is 4.85: what a model that knows nothing gets.
    assert losses[-1] < 3.5
    assert "Return the " in capsys.readouterr().out
    assert (tmp_path / "bundle" / "model.onnx").exists()


@pytest.mark.slow
@pytest.mark.only("torch")
def test_train_translation(tmp_path, capsys):
    try:
        losses = run("train_translation", folder=tmp_path)
    except DataError as error:
        pytest.skip(f"no Debian mirror at hand: {error}")
    # ln(4000) is 8.29: what a model that knows nothing gets.
    assert losses[-1] < 7.5
    assert "BLEU of the bundle" in capsys.readouterr().out
    assert (tmp_path / "bundle" / "encoder_model.onnx").exists()


@pytest.mark.slow
@pytest.mark.backend_free
def test_seq2seq_vs_transformer(tmp_path):
    first = study(tmp_path)
    if "DataError" in first.stderr:
        pytest.skip(f"no Debian mirror at hand: {first.stderr[-500:]}")
    assert first.returncode == 0, first.stderr[-2000:]
    found = json.loads((tmp_path / "seq2seq_vs_transformer" / "results.json").read_text("utf-8"))
    results = found["results"]
    sizes = [model["parameters"] for model in results["training"].values()]
    assert max(sizes) < 1.03 * min(sizes)
    text = (tmp_path / "seq2seq_vs_transformer.md").read_text("utf-8")
    figures = sorted((tmp_path / "seq2seq_vs_transformer").glob("*.png"))
    assert len(figures) == 8
    assert all(f"seq2seq_vs_transformer/{figure.name}" in text for figure in figures)
    assert all(example["source"] in text for example in results["examples"])
    # An interrupted study goes on where it stopped, and so a finished one ends at once.
    again = study(tmp_path)
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout.count("reused") == len(results["seconds"])


def study(folder):
    """Run the study's short form; the study is of one backend, and that is JAX."""
    command = [sys.executable, FOLDER / "seq2seq_vs_transformer.py", "--short", "--output", folder]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_every_example_is_run():
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in FOLDER.glob("*.py")} <= tested
