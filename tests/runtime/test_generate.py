"""Decoder bundles, both targets, against transformers' generate and among themselves."""

import copy
import pickle

import numpy as np
import pytest
import torch

from keras_seqattn import runtime
from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.runtime.decoder import OrtDecoder
from keras_seqattn.runtime.values import past_bytes

from .conftest import TEXTS, reference_tokenizer

pytestmark = pytest.mark.backend_free

PAD = 1
SHARED = "keras_seqattn.shared_cache"


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(3)
    rows = [rng.integers(4, 280, size=n).tolist() for n in (11, 1, 7)]
    ids, mask = np.full((3, 11), PAD), np.zeros((3, 11), np.int64)
    for i, row in enumerate(rows):
        ids[i, 11 - len(row) :] = row
        mask[i, 11 - len(row) :] = 1
    return rows, ids, mask


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"repetition_penalty": 1.3, "min_new_tokens": 20},
        {"num_beams": 3, "length_penalty": 1.6},
        {"num_beams": 2, "early_stopping": True, "no_repeat_ngram_size": 2},
    ],
    ids=str,
)
def test_tokens_equal_transformers(llama, decoder, prompts, settings):
    _, ids, mask = prompts
    got = decoder.generate(ids, mask, max_new_tokens=33, **settings)
    wanted = (
        llama[0]
        .generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), max_new_tokens=33, **settings
        )[:, 11:]
        .numpy()
    )
    np.testing.assert_array_equal(got, wanted)


def test_texts_equal_transformers(llama, decoder):
    tokenizer = reference_tokenizer(llama[1])
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        new = llama[0].generate(ids, max_new_tokens=19)[0, ids.shape[1] :]
        wanted = tokenizer.decode(new, skip_special_tokens=True)
        assert decoder.generate(text, max_new_tokens=19) == wanted
        assert "".join(decoder.stream(text, max_new_tokens=19)) == wanted
    together = decoder.generate(TEXTS, max_new_tokens=19)
    assert together == [decoder.generate(text, max_new_tokens=19) for text in TEXTS]


def test_logits_of_cached_steps(llama, decoder, prompts):
    """Prefill and single steps, in a batch padded on the left, and in a used buffer again."""
    rows, ids, mask = prompts
    rng = np.random.default_rng(9)
    more = rng.integers(4, 280, size=(3, 6))
    full = np.concatenate([ids, more], axis=1)
    full_mask = np.concatenate([mask, np.ones_like(more)], axis=1)
    positions = np.maximum(full_mask.cumsum(1) - 1, 0)
    with torch.no_grad():
        wanted = llama[0](
            torch.tensor(full),
            attention_mask=torch.tensor(full_mask),
            position_ids=torch.tensor(positions),
        ).logits.numpy()
    driver = decoder._generator().decoder
    for _ in range(2):
        driver.start(3, 17)
        got = [driver(ids, mask).copy()]
        for n in range(11, 17):
            got.append(driver(full[:, n : n + 1], full_mask[:, : n + 1]).copy())
        # Two layers in float32, logits of size about 10: rounding, and nothing like a wrong key.
        np.testing.assert_allclose(np.stack(got, 1), wanted[:, 10:], atol=1e-4)


def test_reorder_moves_the_past(decoder, prompts):
    _, ids, mask = prompts
    driver = decoder._generator().decoder
    rows, ones = np.array([2, 0, 0]), np.ones((3, 1), np.int64)
    step = np.array([[9], [8], [7]])
    driver.start(3, 13)
    driver(ids, mask)
    driver.reorder(rows)
    got = driver(step, np.concatenate([mask[rows], ones], axis=1)).copy()
    driver.start(3, 13)
    driver(ids[rows], mask[rows])
    wanted = driver(step, np.concatenate([mask[rows], ones], axis=1))
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_shared_buffer_is_used_in_place(decoder):
    decoder.generate([5, 6], max_new_tokens=3)
    pool = decoder._parts["decoders"]
    assert pool.example.shared_cache == (decoder.metadata["keras_seqattn.target"] == "ort")
    if not pool.example.shared_cache:
        return
    with pool.lend() as driver:
        pass
    buffers = {name: cache.data_ptr() for name, cache in driver._values.items()}
    decoder.generate([[5, 6, 7]], max_new_tokens=100)
    assert {name: cache.data_ptr() for name, cache in driver._values.items()} == buffers
    name, cache = next(iter(driver._values.items()))
    used = np.abs(cache.numpy()).sum(axis=(0, 1, 3)) > 0
    assert used[:102].all() and len(used) == 128
    decoder.generate([[5, 6, 7]], max_new_tokens=130)
    assert driver._values[name].shape()[2] == 256


def test_the_driver_refuses_what_does_not_fit(decoder):
    driver = decoder._generator().decoder
    driver.start(1, 3)
    with pytest.raises(InputError, match=r"attention_mask must be \(1, 2\)"):
        driver(np.array([[5, 6]]), np.ones((1, 3), np.int64))
    with pytest.raises(InputError, match="longer than the 3 tokens planned"):
        driver(np.array([[5, 6, 7, 8]]), np.ones((1, 4), np.int64))


def test_a_graph_that_is_no_decoder(embedder):
    with pytest.raises(BundleError, match="not a decoder: it lacks logits"):
        OrtDecoder(embedder[0].session, 7, False)


def test_chat(llama, decoder):
    tokenizer = reference_tokenizer(llama[1])
    messages = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
    messages.append({"role": "user", "content": "on?"})
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt.endswith("<|assistant|>") and "<|end|>" in prompt
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    wanted = decoder.tokenizer.decode(decoder.generate(ids, max_new_tokens=9))
    assert decoder.chat(messages, max_new_tokens=9) == wanted
    assert "".join(decoder.chat(messages, stream=True, max_new_tokens=9)) == wanted
    single = [{"role": "user", "content": "the"}]
    assert decoder.chat("the", max_new_tokens=4) == decoder.chat(single, max_new_tokens=4)


def test_input_errors(decoder):
    vocabulary = decoder.config["vocab_size"]
    with pytest.raises(InputError, match=f"token id {vocabulary}"):
        decoder.generate([vocabulary])
    with pytest.raises(InputError, match="context is 211"):
        decoder.generate([5] * 211)
    with pytest.raises(InputError, match="exceeds the model's context of 211"):
        decoder.generate("text", max_new_tokens=211)
    with pytest.raises(InputError, match="a prompt is empty"):
        decoder.generate([[]])
    with pytest.raises(InputError, match="unknown generation settings: max_tokens"):
        decoder.generate("text", max_tokens=3)
    for method in ("embed", "classify", "tag"):
        with pytest.raises(InputError, match=f"{method} needs .* task of this one is causal_lm"):
            getattr(decoder, method)("text")


def test_without_a_tokenizer(llama, decoder_bundle, tmp_path):
    import shutil

    bundle = shutil.copytree(decoder_bundle, tmp_path / "bundle")
    for name in ("tokenizer.json", "tokenizer_config.json", "parity.json"):
        (bundle / name).unlink()
    model = runtime.load(bundle, threads=1)
    assert len(model.generate([5, 6], max_new_tokens=2)) <= 2
    with pytest.raises(InputError, match="there is no tokenizer: pass token ids"):
        model.generate("text")
    with pytest.raises(BundleError, match="chat needs text, and this bundle has no tokenizer.json"):
        model.chat("text")


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy, copy.copy])
def test_a_loaded_bundle_is_not_sent_elsewhere(decoder, copied):
    with pytest.raises(TypeError, match=r"cannot be pickled or copied.*runtime\.load\("):
        copied(decoder)


def test_room_for_beams_includes_what_reordering_copies(decoder):
    """Too low an estimate lets the system end the process instead of an error."""
    driver = OrtDecoder(decoder.session, 300, decoder.metadata.get(SHARED) == "true")
    rows, length = 64, 128
    alone = driver.room(rows, 1, length, rows)
    buffer = max(past_bytes([value], rows, length) for value in driver._pasts.values())
    assert driver.room(rows, 1, length, 1) == alone + 2 * buffer
