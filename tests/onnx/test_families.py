"""Every family, exported and proven equal to Keras, with the graph it should have."""

import re
from collections import Counter

import pytest

from keras_seqattn.onnx import build_graph, export
from tests.onnx import tiny

TARGETS = ["portable", "ort"]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", tiny.DECODERS)
def test_decoder(name, target, tmp_path):
    report = export(tiny.decoder(name), tmp_path / "bundle", target=target)
    names = " ".join(case.name for case in report.cases)
    for part in (
        "length 1",
        "length 33",
        "left padding",
        "right padding",
        "cached steps",
        "greedy",
    ):
        assert part in names
    assert 0 < report.worst <= 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", tiny.ENCODERS)
def test_encoder(name, target, tmp_path):
    report = export(tiny.encoder(name), tmp_path / "model.onnx", target=target)
    assert 0 < report.worst <= 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantised(precision, target, tmp_path):
    report = export(tiny.decoder("llama"), tmp_path / "llama", target=target, precision=precision)
    assert 1e-3 < report.error < report.tolerance
    report = export(tiny.encoder("bert"), tmp_path / "bert", target=target, precision=precision)
    assert 1e-3 < report.error < report.tolerance


def layer_counts(graph):
    """How often each operator occurs inside layers_1."""
    inside = [n for n in graph.graph if re.search(r"(^|/)layers_1/", n.name)]
    return Counter(n.op_type for n in inside)


def test_llama_layer_is_ten_nodes():
    counts = layer_counts(build_graph(tiny.decoder("llama"), "ort"))
    assert counts == {
        "SkipSimplifiedLayerNormalization": 2, "MatMul": 4, "GroupQueryAttention": 1, "Split": 1,
        "QuickGelu": 1, "Mul": 1,
    }  # fmt: skip


def test_bert_layer_is_fourteen_nodes():
    counts = layer_counts(build_graph(tiny.encoder("bert"), "ort"))
    assert counts == {
        "LayerNormalization": 2, "MatMul": 4, "Add": 3, "BiasGelu": 1, "Attention": 1, "Split": 1,
        "Sum": 2,
    }  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
def test_no_casts_and_shapes_inside_layers(target):
    for model in (tiny.decoder("llama"), tiny.encoder("bert")):
        counts = layer_counts(build_graph(model, target))
        assert counts and not {"Cast", "Shape", "Reshape", "Transpose", "Expand"} & set(counts)


def test_portable_uses_no_other_domain():
    for model in (tiny.decoder("mistral"), tiny.encoder("bert")):
        graph = build_graph(model, "portable")
        assert {n.domain for n in graph.graph} == {""}
        assert set(graph.graph.opset_imports) == {""}
