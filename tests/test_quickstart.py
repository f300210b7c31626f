"""The quickstart, as the README starts it, with the real models."""

import pytest

from keras_seqattn import runtime
from keras_seqattn.quickstart import QUERY, SENTENCES, quickstart


# `.ci/run` also starts it on TensorFlow, as the README does.
@pytest.mark.slow
@pytest.mark.only("torch")
def test_it_answers_and_finds(tmp_path, capsys):
    answer, ranking = quickstart(tmp_path)
    assert "Paris" in answer
    # Three sentences are about keeping food; only one of them is about bread.
    assert ranking[0] == SENTENCES[0] and sorted(ranking) == sorted(SENTENCES)
    out, err = capsys.readouterr()
    assert answer in out and "tokens per second" in out and f"? {QUERY}" in out
    assert err.count("onnxruntime agrees with Keras") == 2
    metadata = runtime.load(tmp_path / "smollm2").metadata
    assert metadata["keras_seqattn.precision"] == "int4"
    metadata = runtime.load(tmp_path / "minilm").metadata
    assert metadata["keras_seqattn.precision"] == "int8"
