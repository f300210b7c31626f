"""Decoder bundles run in onnxruntime-genai as they are, and give our runtime's greedy tokens."""

import numpy as np
import pytest

from keras_seqattn import runtime
from keras_seqattn.onnx import build_graph, export
from keras_seqattn.onnx.genai import config
from tests.onnx import tiny

genai = pytest.importorskip("onnxruntime_genai", reason="compares with onnxruntime-genai")

pytestmark = pytest.mark.backend_free


def genai_tokens(bundle, prompt, count):
    model = genai.Model(str(bundle))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(prompt) + count, do_sample=False)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(prompt)
    tokens = []
    while not generator.is_done():
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("name", ["llama", "mistral", "qwen3"])
def test_greedy_tokens(name, target, precision, tmp_path):
    export(tiny.decoder(name), tmp_path / "b", target=target, precision=precision, verify=False)
    prompt = np.array([5, 17, 61, 8, 90, 33, 2], np.int32)
    model = runtime.load(tmp_path / "b")
    ours = list(model.generate(prompt.tolist(), max_new_tokens=20, do_sample=False))
    theirs = genai_tokens(tmp_path / "b", prompt, 20)
    # Both stop at the end-of-sequence token, which only ours returns.
    assert theirs == ours[: len(theirs)] and len(theirs) > 6
    assert len(theirs) == 20 or ours[len(theirs) :] in ([], [96])


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_sizes_come_from_the_graph(target):
    """Families call them n_embd and n_head, or anything."""
    model = tiny.decoder("llama")
    graph = build_graph(model, target).graph
    known = config(model.config, {}, graph)
    foreign = {"n_embd": 64, "n_head": 4, "max_position_embeddings": 64}
    for found in (config(foreign, {}, graph), config({"max_position_embeddings": 64}, {}, graph)):
        assert found["model"]["decoder"] == known["model"]["decoder"]
        assert found["model"]["vocab_size"] == known["model"]["vocab_size"]
    assert known["model"]["decoder"]["hidden_size"] == model.config["hidden_size"]
    assert known["model"]["decoder"]["num_attention_heads"] == model.config["num_attention_heads"]


@pytest.mark.parametrize("name", ["transfo_xl", "xlnet", "lfm2", "qwen3_next"])
def test_no_configuration_for_what_genai_cannot_run(name, tmp_path):
    model = tiny.decoder(name)
    export(model, tmp_path / "b", verify=False)
    assert not (tmp_path / "b" / "genai_config.json").exists()


def test_no_configuration_for_a_graph_with_other_inputs():
    graph = build_graph(tiny.decoder("llama")).graph
    graph.inputs[0].name = "pixels"
    assert config(tiny.decoder("llama").config, {}, graph) is None
    graph.inputs[0].name = "input_ids"
    next(o for o in graph.outputs if o.name == "logits").name = "scores"
    assert config(tiny.decoder("llama").config, {}, graph) is None
