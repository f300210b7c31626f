"""Lower versions of the standard operators: what allows them, and what is said otherwise."""

import keras
import pytest
from keras import layers

from keras_seqattn import cli, models
from keras_seqattn.errors import ExportError
from keras_seqattn.inspection import inspect
from keras_seqattn.onnx import build_graph, export
from tests.helpers import randomise
from tests.onnx import tiny

pytestmark = pytest.mark.backend_free


def recurrent():
    ids = keras.Input((None,), name="ids", dtype="int32")
    x = layers.LSTM(24, return_sequences=True)(layers.Embedding(31, 16)(ids))
    x = layers.LayerNormalization()(x)
    return randomise(keras.Model(ids, layers.Dense(17, activation="softmax")(x)), seed=2)


@pytest.mark.parametrize(("precision", "opset", "ir_version"), [
    ("fp32", 17, 8), ("int8", 17, 8), ("float16", 18, 8), ("fp32", 21, 10), ("fp32", 23, 10),
])  # fmt: skip
def test_a_lower_version(precision, opset, ir_version, tmp_path):
    file = tmp_path / "model.onnx"
    assert export(recurrent(), file, target="portable", precision=precision, opset=opset).ok
    assert inspect(file).graphs[0].opsets == {"ai.onnx": opset}
    graph = build_graph(recurrent(), "portable", opset=opset)
    assert (graph.opset_imports[""], graph.ir_version) == (opset, ir_version)


def test_the_operators_and_the_lowest_version_are_named(tmp_path):
    words = r"opset 17 is too low .*: Attention \(23\), Gelu \(20\)\. The lowest .* is 23"
    with pytest.raises(ExportError, match=words):
        export(tiny.encoder("bert"), tmp_path / "out", target="portable", opset=17)
    # Of both graphs of an encoder-decoder, and of what a precision adds.
    with pytest.raises(ExportError, match=r"Attention \(23\), RMSNormalization \(23\)"):
        export(tiny.seq2seq("t5"), tmp_path / "out", target="portable", opset=20)
    with pytest.raises(ExportError, match=r": DequantizeLinear \(21\)\. .* is 21"):
        export(
            tiny.encoder("big_bird-masked"), tmp_path / "out", target="portable", opset=20,
            precision="int4",
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("opset", "words"), [
    (24, "opset 24 is above 23"), (12, "whole number from 13, not 12"), ("17", "not '17'"),
    (True, "not True"), (17.0, "not 17.0"),
])  # fmt: skip
def test_versions_that_are_refused(opset, words, tmp_path):
    with pytest.raises(ExportError, match=words):
        export(recurrent(), tmp_path / "model.onnx", opset=opset)
    with pytest.raises(ExportError, match=words):
        build_graph(recurrent(), opset=opset)


def test_the_command_line_asks_for_it(tmp_path, capsys):
    models.save(tiny.encoder("bert"), tmp_path / "bert")
    arguments = ["export", str(tmp_path / "bert"), str(tmp_path / "out"), "--quiet"]
    assert cli.main([*arguments, "--opset", "20"]) == 1
    assert "opset 20 is too low" in capsys.readouterr().err
