"""Causal language models of keras-hub as bundles: the tokens of their own `generate`."""

import json

import keras
import numpy as np
import pytest

from keras_seqattn import runtime
from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph, export, verify
from keras_seqattn.onnx.arguments import adopted_model
from tests.helpers import randomise
from tests.onnx.test_genai import genai_tokens

# CI installs it, see .ci/run.
keras_hub = pytest.importorskip("keras_hub", reason="needs pip install --no-deps keras-hub")

SMALL = {"vocabulary_size": 97, "num_layers": 2, "hidden_dim": 64, "intermediate_dim": 40}
HEADS = {"num_heads": 4, "max_sequence_length": 64}
GROUPS = {"num_query_heads": 4, "num_key_value_heads": 2}
GEMMA2 = {
    "head_dim": 16,
    "use_post_ffw_norm": True,
    "use_post_attention_norm": True,
    "attention_logit_soft_cap": 5.0,
    "use_sliding_window_attention": True,
    "sliding_window_size": 5,
}
# Class -> arguments of its backbone. A window is shorter than the texts.
DECODERS = {
    "GPT2": HEADS,
    "OPT": HEADS,
    "Llama": GROUPS,
    "Mistral": GROUPS | {"sliding_window": 5},
    "Gemma": GROUPS | GEMMA2,
    "Qwen": GROUPS,
    "Qwen3": GROUPS | {"head_dim": 16, "sliding_window_size": None},
    "Phi3": GROUPS,
    "Bloom": {"num_heads": 4},
    "Falcon": {"num_attention_heads": 4},
    "QwenMoe": GROUPS
    | {
        "moe_intermediate_dim": 24,
        "shared_expert_intermediate_dim": 20,
        "num_experts": 4,
        "top_k": 2,
    },
}
# TensorFlow and JAX compile each `generate`: there a part of them.
ON_ALL = ("GPT2", "Llama", "Gemma", "Mistral", "Qwen", "Bloom")
PROMPTS = [[5, 17, 61, 8, 90], [33, 2, 14, 70, 41, 9, 26, 88], [3, 66, 12]]
LENGTH = 18


def task(name, **changes):
    backbone = getattr(keras_hub.models, f"{name}Backbone")(**SMALL | DECODERS[name] | changes)
    made = getattr(keras_hub.models, f"{name}CausalLM")(backbone, preprocessor=None)
    made.compile(sampler="greedy")
    return randomise(made, seed=3)


def own_tokens(model):
    """The tokens of keras-hub after each prompt."""
    ids = np.zeros((len(PROMPTS), LENGTH), "int32")
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(PROMPTS):
        ids[row, : len(prompt)], mask[row, : len(prompt)] = prompt, 1
    made = model.generate({"token_ids": ids, "padding_mask": mask}, stop_token_ids=None)
    tokens = keras.ops.convert_to_numpy(made["token_ids"])
    return [row[len(prompt) :].tolist() for row, prompt in zip(tokens, PROMPTS, strict=True)]


@pytest.mark.parametrize("name", DECODERS)
def test_greedy_tokens(name, tmp_path):
    backend = keras.backend.backend()
    if name not in ON_ALL and backend != "torch":
        pytest.skip("the same code on every backend; tried on PyTorch, which compiles nothing")
    model = task(name)
    # Verification runs the model with padding on both sides, and steps after padding. JAX compiles
    # it for each shape.
    verifies = backend == "torch" or (backend == "tensorflow" and name == "Llama")
    report = export(model, tmp_path / "b", verify=verifies, lengths=[1, 7])
    assert not verifies or 0 < report.worst <= 1e-4
    expected, loaded = own_tokens(model), runtime.load(tmp_path / "b")
    for prompt, tokens in zip(PROMPTS, expected, strict=True):
        made = loaded.generate(prompt, max_new_tokens=len(tokens), do_sample=False)
        assert list(made) == tokens
    count = LENGTH - max(map(len, PROMPTS))
    made = loaded.generate(PROMPTS, max_new_tokens=count, do_sample=False)
    assert [list(row) for row in made] == [tokens[:count] for tokens in expected]


@pytest.mark.backend_free
@pytest.mark.parametrize("name", ["Llama", "GPT2"])
def test_other_runtimes_and_precisions(name, tmp_path):
    pytest.importorskip("onnxruntime_genai")
    model = task(name)
    expected = own_tokens(model)
    for target, precision in (("ort", "fp32"), ("portable", "fp32"), ("ort", "int4")):
        bundle = tmp_path / f"{target}-{precision}"
        export(model, bundle, target=target, precision=precision, verify=False)
        made = genai_tokens(bundle, PROMPTS[0], len(expected[0]))
        ours = expected[0]
        if precision != "fp32":
            loaded = runtime.load(bundle)
            ours = list(loaded.generate(PROMPTS[0], max_new_tokens=20, do_sample=False))
        # Without an end token of the model, onnxruntime-genai stops at token 0.
        assert len(made) > 6 and made == ours[: len(made)]


@pytest.mark.backend_free
@pytest.mark.parametrize("name", DECODERS)
def test_attention_is_one_node(name):
    graph = build_graph(adopted_model(task(name))).graph
    nodes = [node.op_type for node in graph]
    if name in ("Bloom", "Falcon"):
        # Their biases are added to scores, in keras-hub's own code.
        assert nodes.count("Softmax") == 2
        return
    assert nodes.count("GroupQueryAttention") == 2
    assert "Softmax" not in nodes or name == "QwenMoe"
    # No copy of a past, as keys for each query head, or for another order of axes.
    assert "Transpose" not in nodes or name == "QwenMoe"


@pytest.mark.backend_free
def test_companions(tmp_path):
    # A byte-level vocabulary: all bytes, one merge, and the special tokens.
    pytest.importorskip("tokenizers")
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate([*letters, "he", "<|endoftext|>"])}
    tokenizer = keras_hub.models.GPT2Tokenizer(vocabulary=vocabulary, merges=["h e"])
    preprocessor = keras_hub.models.GPT2CausalLMPreprocessor(tokenizer, sequence_length=32)
    backbone = keras_hub.models.GPT2Backbone(**SMALL | HEADS | {"vocabulary_size": len(vocabulary)})
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=preprocessor)
    model.compile(sampler=keras_hub.samplers.TopPSampler(p=0.7, k=9, temperature=0.5))
    export(model, tmp_path / "b", lengths=[3])
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config["model_type"] == "gpt2" and config["n_layer"] == 2 and config["n_head"] == 4
    settings = json.loads((tmp_path / "b" / "generation_config.json").read_text())
    assert (settings["top_k"], settings["top_p"], settings["temperature"]) == (9, 0.7, 0.5)
    assert settings["do_sample"] and settings["eos_token_id"] == vocabulary["<|endoftext|>"]
    loaded = runtime.load(tmp_path / "b")
    tokens = ("<|endoftext|>", "he", "he", "Ġ", "x")
    assert loaded.tokenizer.encode("hehe x") == [vocabulary[token] for token in tokens]
    assert isinstance(loaded.generate("hehe", max_new_tokens=3), str)


@pytest.mark.backend_free
def test_one_file_is_one_call(tmp_path):
    model = task("Llama")
    export(model, tmp_path / "m.onnx", lengths=[5])
    names = [i.name for i in build_graph(model).graph.inputs]
    assert sorted(names) == ["padding_mask", "token_ids"]


@pytest.mark.backend_free
def test_another_model_is_noticed(tmp_path):
    model = task("Llama")
    export(model, tmp_path / "b", verify=False)
    assert not verify(tmp_path / "b", randomise(task("Llama"), seed=4), lengths=[5]).ok


@pytest.mark.backend_free
def test_what_is_no_buffer_of_keys_is_refused(tmp_path):
    backbone = keras_hub.models.RWKV7Backbone(
        hidden_size=32, head_size=8, num_layers=2, vocabulary_size=97, intermediate_dim=40,
        gate_lora=8, mv_lora=8, aaa_lora=8, decay_lora=8,
    )  # fmt: skip
    model = keras_hub.models.RWKV7CausalLM(backbone, preprocessor=None)
    with pytest.raises(ExportError, match="export it to one file"):
        export(model, tmp_path / "b")
