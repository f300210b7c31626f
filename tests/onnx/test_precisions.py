"""Precisions and targets that a program of someone else adds: exported, verified, run, listed."""

import re

import numpy as np
import onnx_ir as ir
import pytest

from keras_seqattn import cli, onnx, runtime
from keras_seqattn.errors import BundleError, ExportError
from keras_seqattn.inspection import inspect
from keras_seqattn.onnx import precisions, targets
from keras_seqattn.onnx.quantize import quantize
from tests.onnx import tiny

pytestmark = pytest.mark.backend_free


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    """Rows that a test adds are gone after it."""
    monkeypatch.setattr(precisions, "PRECISIONS", dict(precisions.PRECISIONS))
    monkeypatch.setattr("keras_seqattn.onnx.verification.PRECISIONS", precisions.PRECISIONS)
    monkeypatch.setattr(targets, "TARGETS", dict(targets.TARGETS))


def on_a_grid(model, parts=1, progress=None):
    """Weights on a grid of 255 values, kept as float32: what a precision of someone else may do."""
    for value in list(model.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT and len(value.shape) == 2:
            array = value.const_value.numpy()
            step = np.abs(array).max() / 127
            rounded = (np.rint(array / step) * step).astype(np.float32)
            value.const_value = ir.Tensor(rounded, name=value.name)


def quantised_in_small_blocks(model, parts=1, progress=None):
    quantize(model, "int4", block_size=32, progress=progress)


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_a_precision_from_outside(name, tmp_path, capsys):
    onnx.register_precision(onnx.Precision("coarse", "a grid", 0.2, rewrite=on_a_grid))
    table = {"llama": tiny.decoder, "bert": tiny.encoder, "t5": tiny.seq2seq}
    model = table[name](name)
    report = onnx.export(model, tmp_path / "out", precision="coarse")
    assert report.precision == "coarse" and report.tolerance == 0.2
    # The error is that of the grid, and not none at all.
    assert 1e-3 < report.error < 0.2
    assert onnx.verify(tmp_path / "out", model).ok
    assert inspect(tmp_path / "out").metadata["keras_seqattn.precision"] == "coarse"
    loaded = runtime.load(tmp_path / "out")
    if name != "bert":
        ids = loaded.generate(np.arange(5)[None], max_new_tokens=4, do_sample=False)
        assert ids.shape[0] == 1
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    assert "coarse (a grid)" in " ".join(capsys.readouterr().out.split())


def test_a_precision_of_one_line_over_the_quantiser(tmp_path):
    row = onnx.Precision("int4_32", "small blocks", 0.6, rewrite=quantised_in_small_blocks)
    onnx.register_precision(row)
    model = tiny.decoder("llama")
    assert onnx.export(model, tmp_path / "out", precision="int4_32").ok
    blocks = {
        node.attributes["block_size"].value
        for node in ir.load(tmp_path / "out" / "model.onnx").graph
        if node.op_type == "MatMulNBits"
    }
    assert blocks == {16, 32}


def test_what_another_program_registered_is_named(tmp_path):
    onnx.register_precision(onnx.Precision("coarse", "a grid", 0.2, rewrite=on_a_grid))
    model = tiny.encoder("bert")
    onnx.export(model, tmp_path / "model.onnx", precision="coarse")
    del precisions.PRECISIONS["coarse"]
    with pytest.raises(BundleError, match="'coarse', which is unknown here.*register_precision"):
        onnx.verify(tmp_path / "model.onnx", model)


def test_a_target_from_outside(tmp_path, capsys):
    """Standard operators but for one, and caches that grow."""
    target = onnx.Target("mine", contrib=frozenset({"GroupQueryAttention", "QuickGelu"}))
    onnx.register_target(target)
    model = tiny.decoder("llama")
    assert onnx.export(model, tmp_path / "out", target="mine").ok
    summary = inspect(tmp_path / "out")
    contrib = {name for name in summary.operators if name.startswith("com.microsoft")}
    assert contrib == {"com.microsoft.GroupQueryAttention", "com.microsoft.QuickGelu"}
    assert summary.metadata["keras_seqattn.target"] == "mine"
    assert "keras_seqattn.shared_cache" not in summary.metadata
    onnx.export(model, tmp_path / "shared", target="ort")
    assert inspect(tmp_path / "shared").metadata["keras_seqattn.shared_cache"] == "true"
    prompt = np.arange(5)[None]
    texts = [
        runtime.load(tmp_path / name).generate(prompt, max_new_tokens=9, do_sample=False)
        for name in ("out", "shared")
    ]
    assert np.array_equal(*texts)
    with pytest.raises(SystemExit):
        cli.main(["export", "--help"])
    assert "ort, portable, mine" in " ".join(capsys.readouterr().out.split())


def test_a_target_of_a_newer_onnxruntime_says_so(tmp_path):
    onnx.register_target(onnx.Target("new", onnxruntime="99.1"))
    with pytest.raises(ExportError, match="target new need onnxruntime 99.1, and .* is installed"):
        onnx.export(tiny.encoder("bert"), tmp_path / "out", target="new")
    onnx.export(tiny.encoder("bert"), tmp_path / "out", target="new", verify=False)
    assert inspect(tmp_path / "out").metadata["keras_seqattn.onnxruntime"] == "99.1"


def test_a_target_of_a_lower_opset(tmp_path):
    onnx.register_target(onnx.Target("old", opset=20))
    assert onnx.export(tiny.encoder("big_bird-masked"), tmp_path / "out", target="old").ok
    assert inspect(tmp_path / "out").graphs[0].opsets == {"ai.onnx": 20}
    with pytest.raises(ExportError, match=re.escape("Attention (23)")):
        onnx.build_graph(tiny.encoder("bert"), "old")


def test_a_target_names_its_providers(tmp_path):
    onnx.register_target(onnx.Target("far", providers=("NoSuchExecutionProvider",)))
    with pytest.raises(Exception, match="NoSuchExecutionProvider are not available"):
        onnx.export(tiny.encoder("bert"), tmp_path / "out", target="far")


@pytest.mark.parametrize(
    ("register", "row", "words"),
    [
        (onnx.register_precision, "fp32", "must be a Precision, not 'fp32'"),
        (onnx.register_target, None, "must be a Target, not None"),
        (onnx.register_precision, onnx.Precision("fp32", "other", 0.1), "there is a precision"),
        (onnx.register_target, onnx.Target("ort"), "there is a target 'ort' already"),
        (onnx.register_target, onnx.Target("a b"), "name of a target is made of letters"),
        (onnx.register_precision, onnx.Precision(3, "three", 0.1), "name of a precision"),
    ],
)
def test_rows_that_are_refused(register, row, words):
    with pytest.raises(ExportError, match=words):
        register(row)


@pytest.mark.parametrize(
    ("row", "attributes", "words"),
    [
        (onnx.Precision, {"description": "", "tolerance": "0.1"}, "a number from 0, not '0.1'"),
        (onnx.Precision, {"description": "", "tolerance": float("nan")}, "a number from 0"),
        (onnx.Precision, {"description": "", "tolerance": 1, "measure": 3}, "a Measure, not 3"),
        (onnx.Precision, {"description": "", "tolerance": 1, "rewrite": 3}, "a function, not 3"),
        (onnx.Target, {"contrib": "QuickGelu"}, "a set of names, not 'QuickGelu'"),
        (onnx.Target, {"opset": "23"}, "a whole number, not '23'"),
        (onnx.Target, {"onnxruntime": 1.24}, "a version like"),
    ],
)
def test_attributes_of_rows_that_are_refused(row, attributes, words):
    with pytest.raises(ExportError, match=words):
        row("new", **attributes)


def test_the_same_row_may_come_again():
    row = onnx.Precision("again", "twice", 0.1)
    assert onnx.register_precision(row) is onnx.register_precision(row) is row


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_the_tolerance_of_a_row_decides(tolerance, tmp_path):
    row = onnx.Precision("strict", "a grid", tolerance, rewrite=on_a_grid)
    onnx.register_precision(row)
    with pytest.raises(ExportError, match="DIFFERS.*strict tolerance"):
        onnx.export(tiny.encoder("bert"), tmp_path / "out", precision="strict")


def test_an_int8_head_over_an_int4_body(tmp_path):
    model = tiny.decoder("llama-mha-untied")
    errors = {}
    for precision in ("int4", "int4_int8_head"):
        report = onnx.export(model, tmp_path / precision, precision=precision)
        errors[precision] = report.error
    graph = ir.load(tmp_path / "int4_int8_head" / "model.onnx").graph
    bits = [n.attributes["bits"].value for n in graph if n.op_type == "MatMulNBits"]
    assert bits[-1] == 8 and set(bits[:-1]) == {4}
    assert errors["int4_int8_head"] < errors["int4"]


@pytest.mark.parametrize("target", ["ort", "portable"])
def test_an_int8_head_that_is_tied(target, tmp_path):
    model = tiny.decoder("llama")
    assert onnx.export(model, tmp_path / "out", precision="int4_int8_head", target=target).ok
