"""Every family, exported and proven equal to Keras, with the graph it should have."""

import re
from collections import Counter

import keras
import pytest

from keras_seqattn.onnx import build_graph, build_graphs, export
from tests.onnx import tiny

TARGETS = ["portable", "ort"]


# JAX compiles a model anew for each shape.
LENGTHS = [1, 33] if keras.backend.backend() == "jax" else None


@pytest.mark.parametrize("name", tiny.DECODERS)
def test_decoder(name, tmp_path):
    model = tiny.decoder(name)
    for target in TARGETS:
        report = export(model, tmp_path / target, target=target, lengths=LENGTHS)
        names = " ".join(case.name for case in report.cases)
        for part in ("length 1", "length 33", "left", "right", "cached steps", "greedy"):
            assert part in names
        assert 0 < report.worst <= 1e-4


@pytest.mark.parametrize("name", tiny.ENCODERS)
def test_encoder(name, tmp_path):
    model = tiny.encoder(name)
    for target in TARGETS:
        report = export(model, tmp_path / "model.onnx", target=target, lengths=LENGTHS)
        assert 0 < report.worst <= 1e-4


# The files are the same from every backend; those of T5 are compared with Keras on each.
@pytest.mark.backend_free
@pytest.mark.parametrize("name", tiny.SEQ2SEQ)
def test_encoder_decoder(name, tmp_path):
    model = tiny.seq2seq(name)
    parts = ("length 1,", "length 5, left", "length 29, right", "20 cached steps", "greedy")
    for target in TARGETS:
        report = export(model, tmp_path / target, target=target)
        names = " | ".join(case.name for case in report.cases)
        assert all(part in names for part in parts)
        assert 0 < report.worst <= 1e-4


@pytest.mark.backend_free
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["marian", "t5-gated"])
def test_quantised_encoder_decoder(name, target, tmp_path):
    report = export(tiny.seq2seq(name), tmp_path / "bundle", target=target, precision="int8")
    assert 1e-4 < report.error < report.tolerance


@pytest.mark.parametrize("make", [lambda: tiny.decoder("llama"), lambda: tiny.encoder("bert")])
def test_quantised(make, tmp_path):
    model = make()
    for target in TARGETS:
        for precision in ("int8", "int4"):
            settings = {"target": target, "precision": precision, "lengths": LENGTHS}
            report = export(model, tmp_path / f"{target}-{precision}", **settings)
            assert 1e-3 < report.error < report.tolerance


def layer_counts(graph, layer="layers_1"):
    """How often each operator occurs inside a layer."""
    inside = [n for n in graph.graph if re.search(rf"(^|/){layer}/", n.name)]
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


@pytest.mark.backend_free
def test_t5_layers():
    encoder, decoder = build_graphs(tiny.seq2seq("t5"), "ort").values()
    own = {
        "SkipSimplifiedLayerNormalization": 2,
        "MatMul": 4,
        "Attention": 1,
        "Split": 1,
        "Relu": 1,
    }
    assert layer_counts(encoder, "encoder_layers_1") == own
    # Cross-attention reads its keys and values in the layout of their cache, to which new ones are
    # appended; queries and results are turned to it and back.
    cross = {"SkipSimplifiedLayerNormalization": 1, "MatMul": 4, "Attention": 1, "Concat": 2,
             "Reshape": 4, "Transpose": 4}  # fmt: skip
    assert layer_counts(decoder, "decoder_layers_1") == Counter(own) + Counter(cross)


@pytest.mark.backend_free
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["rnn_seq2seq", "bahdanau", "transformer", "bart", "t5-gated"])
def test_no_casts_and_shapes_inside_layers_of_encoder_decoders(name, target):
    graphs = build_graphs(tiny.seq2seq(name), target)
    layers = [r"encoder(_layers_1)?", r"decoder_layers_1"]
    for graph, layer in zip(graphs.values(), layers, strict=True):
        counts = layer_counts(graph, layer)
        assert counts or name == "bahdanau"
        assert not {"Cast", "Shape", "Expand", "Range"} & set(counts)
