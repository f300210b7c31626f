"""The two sample models against transformers, on their real weights."""

import numpy as np
import pytest
import torch
import transformers
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from keras_seqattn import models, samples
from keras_seqattn.weights.formats import open_checkpoint
from tests.models.reference import run, run_reference

TEXTS = (
    "Hello world",
    "don't  stop 12345 it's\n\n\tok",
    "Ünïcode 東京 😀 naïve",
    "<|im_start|>user\nhi<|im_end|>",
    "  leading, x=" + "1" * 20,
)


def test_sentence_encoder_and_its_round_trip(tmp_path):
    model = models.load(samples.minilm())
    assert {"tokenizer.json", "vocab.txt", "1_Pooling/config.json"} <= set(model.assets)
    tokenizer = transformers.AutoTokenizer.from_pretrained(samples.minilm())
    texts = ["a cat", "The weather in the mountains changes quickly in autumn."]
    inputs = dict(tokenizer(texts, padding=True, return_tensors="np"))
    inputs = {name: inputs[name].astype("int32") for name in model.input}
    reference = transformers.AutoModel.from_pretrained(samples.minilm()).eval()
    ours, theirs = run(model, inputs), run_reference(reference, inputs)
    real = inputs["attention_mask"].astype(bool)
    # The values are below 2, so this is about a hundred roundings of float32.
    np.testing.assert_allclose(
        ours["last_hidden_state"][real], theirs["last_hidden_state"][real], atol=1e-5
    )
    np.testing.assert_allclose(ours["pooler_output"], theirs["pooler_output"], atol=1e-5)
    models.save(model, tmp_path / "again")
    again = transformers.AutoModel.from_pretrained(tmp_path / "again").eval()
    for name, value in reference.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].numpy(), value.numpy())
    assert (tmp_path / "again" / "1_Pooling" / "config.json").is_file()


@pytest.mark.slow
def test_chat_model_and_its_round_trip(tmp_path):
    model = models.load(samples.smollm2())
    models.save(model, tmp_path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    encoded = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="np", return_dict=True
    )
    ids = encoded["input_ids"].astype("int32")
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    ours, theirs = run(model, inputs)["logits"], run_reference(reference, inputs)["logits"]
    # Logits reach 40 here, over 30 layers of float32.
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    decoder = models.KerasDecoder(model)
    decoder.start(1, ids.shape[1] + 12)
    tokens, fresh, mask = [], ids, np.ones_like(ids)
    while not tokens or (tokens[-1] != tokenizer.eos_token_id and len(tokens) < 12):
        fresh = decoder(fresh, mask).argmax(-1)[:, None]
        tokens.append(int(fresh[0, 0]))
        mask = np.ones((1, mask.shape[1] + 1), "int32")
    assert tokenizer.decode(tokens) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.slow
@pytest.mark.backend_free
def test_gguf_tensors_and_tokenizer_equal_those_of_transformers(tmp_path):
    path = samples.smollm2()
    checkpoint = open_checkpoint(path)
    config = transformers.LlamaConfig(**checkpoint.config)
    with torch.device("meta"):
        empty = transformers.LlamaForCausalLM(config)
    theirs = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=empty)["tensors"]
    assert set(theirs) == set(checkpoint.shapes)
    for name, value in theirs.items():
        np.testing.assert_array_equal(checkpoint.read(name), value.numpy())
    for name, content in checkpoint.assets.items():
        (tmp_path / name).write_bytes(content)
    ours = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    for text in TEXTS:
        assert ours(text)["input_ids"] == other(text)["input_ids"]
        assert ours.decode(ours(text)["input_ids"]) == text
