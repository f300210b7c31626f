"""Bundles of two graphs, both targets, against transformers' generate; translate and summarize."""

import json
import shutil

import numpy as np
import onnx
import pytest
import torch

from keras_seqattn import runtime
from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.runtime.encoder_decoder import OrtEncoderDecoder
from keras_seqattn.runtime.text_tasks import summarization, translation
from keras_seqattn.runtime.tokenizer import Tokenizer

from .conftest import TASKS, TEXTS, byte_level_tokenizer, reference_tokenizer

pytestmark = pytest.mark.backend_free

LONG = "the cat " * 60


def answer(t5, text, **settings):
    """What transformers' generate makes of one text."""
    model, path = t5
    tokenizer = reference_tokenizer(path)
    ids = tokenizer(text, truncation=True, max_length=71)["input_ids"]
    return tokenizer.decode(
        model.generate(torch.tensor([ids]), **settings)[0], skip_special_tokens=True
    )


def of_task(name, **changes):
    settings = {**TASKS[name], **changes}
    return settings.pop("prefix"), settings


def test_generate_and_stream(t5, seq2seq):
    settings = {"max_new_tokens": 11, "no_repeat_ngram_size": 2}
    wanted = [answer(t5, text, **settings) for text in TEXTS]
    assert len(set(wanted)) == len(TEXTS)
    assert seq2seq.generate(TEXTS, **settings) == wanted
    for text, one in zip(TEXTS, wanted, strict=True):
        assert "".join(seq2seq.stream(text, **settings)) == one
    beams = {"num_beams": 4, **settings}
    wanted = [answer(t5, text, **beams) for text in TEXTS]
    assert seq2seq.generate(TEXTS, **beams) == wanted


def test_translate_by_task_specific_params(t5, seq2seq):
    prefix, settings = of_task("translation_en_to_de")
    texts = [*TEXTS, "the", LONG]
    wanted = [answer(t5, prefix + text, **settings) for text in texts]
    for batch_size in (2, 16):
        assert seq2seq.translate(texts, target="de", batch_size=batch_size) == wanted
    assert seq2seq.translate(texts[1], source="en", target="de") == wanted[1]
    prefix, settings = of_task("translation_en_to_fr")
    assert seq2seq.translate(TEXTS[0], target="fr") == answer(t5, prefix + TEXTS[0], **settings)


def test_summarize(t5, seq2seq):
    prefix, settings = of_task("summarization")
    wanted = [answer(t5, prefix + text, **settings) for text in TEXTS]
    assert seq2seq.summarize(TEXTS) == wanted
    # The call's settings win over those of the task.
    prefix, settings = of_task("summarization", num_beams=2, min_length=0, max_length=9)
    wanted = answer(t5, prefix + TEXTS[0], **settings)
    assert seq2seq.summarize(TEXTS[0], num_beams=2, min_length=0, max_length=9) == wanted
    del settings["max_length"]
    wanted = answer(t5, prefix + TEXTS[0], **settings, max_new_tokens=5)
    short = {"num_beams": 2, "min_length": 0, "max_new_tokens": 5}
    assert seq2seq.summarize(TEXTS[0], **short) == wanted


def test_settings_of_the_task_win_over_those_of_the_bundle(t5, copy):
    (copy / "parity.json").unlink()
    settings = json.loads((copy / "generation_config.json").read_text())
    settings |= {"num_beams": 2, "max_length": 30, "repetition_penalty": 1.2}
    (copy / "generation_config.json").write_text(json.dumps(settings))
    prefix, task = of_task("summarization")
    wanted = answer(t5, prefix + TEXTS[0], **task, repetition_penalty=1.2)
    assert runtime.load(copy, threads=1).summarize(TEXTS[0]) == wanted


def test_what_is_refused(seq2seq):
    for languages in ({}, {"source": "en"}, {"target": "it"}, {"source": "de", "target": "en"}):
        with pytest.raises(InputError, match="must choose one .*: en to de, en to fr"):
            seq2seq.translate("text", **languages)
    with pytest.raises(InputError, match="tokens, and the model takes 71: shorten it"):
        seq2seq.summarize(LONG, truncate=False)
    with pytest.raises(InputError, match="batch_size=0"):
        seq2seq.summarize(TEXTS, batch_size=0)
    with pytest.raises(InputError, match="texts must be"):
        seq2seq.summarize([])
    with pytest.raises(InputError, match="unknown generation settings: beams"):
        seq2seq.summarize("text", beams=3)
    for method in ("embed", "classify", "tag", "chat"):
        with pytest.raises(InputError, match=f"{method} needs .* this one is seq2seq_lm"):
            getattr(seq2seq, method)("text")
    with pytest.raises(InputError, match="run needs one graph, and this bundle has encoder_model"):
        seq2seq.run(input_ids=np.ones((1, 1), np.int64))


def test_others_do_not_translate(decoder):
    for method in ("translate", "summarize"):
        with pytest.raises(InputError, match=f"{method} needs a bundle of task seq2seq_lm"):
            getattr(decoder, method)("text")


def tokenizer_of(**config):
    assets = {"tokenizer.json": byte_level_tokenizer().to_str().encode()}
    assets["tokenizer_config.json"] = json.dumps(config).encode()
    return Tokenizer(assets)


def test_languages_that_are_tokens():
    tokenizer = tokenizer_of(src_lang="<|assistant|>")
    assert translation({}, tokenizer) == ("", {})
    assert translation({}, tokenizer, target="<|user|>") == ("", {"forced_bos_token_id": 2})
    same = translation({}, tokenizer, source="<|assistant|>", target="<|user|>")
    assert same == ("", {"forced_bos_token_id": 2})
    # "a" is a piece of words in this vocabulary, and no language.
    for target in ("fr", "a"):
        with pytest.raises(InputError, match=f"target='{target}': neither task_specific_params"):
            translation({}, tokenizer, target=target)
    with pytest.raises(InputError, match=r"files is <\|assistant\|>; use files for the"):
        translation({}, tokenizer, source="<|user|>")
    with pytest.raises(InputError, match="files is not named"):
        translation({}, tokenizer_of(), source="en")


def test_tasks_without_prefix():
    config = {"task_specific_params": {"summarization": {"num_beams": 4, "min_length": 56}}}
    assert summarization(config) == ("", {"num_beams": 4, "min_length": 56})
    assert summarization({"task_specific_params": None}) == ("", {})


def sources(driver, rows):
    length = max(map(len, rows))
    mask = np.array([[1] * len(row) + [0] * (length - len(row)) for row in rows])
    ids = np.array([row + [1] * (length - len(row)) for row in rows])
    driver.encode(ids, mask)
    return ids, mask


ROWS = [[5, 60, 70, 80, 90], [33, 44], [101, 7, 222]]


def test_logits_of_cached_steps(t5, seq2seq):
    """The first step and single ones, with padded sources, and once more afterwards."""
    driver = seq2seq._generator().decoder
    target = np.random.default_rng(9).integers(4, 280, size=(3, 7))
    for rows in (ROWS, ROWS[::-1]):
        ids, mask = sources(driver, rows)
        with torch.no_grad():
            wanted = t5[0](
                torch.tensor(ids),
                attention_mask=torch.tensor(mask),
                decoder_input_ids=torch.tensor(target),
            ).logits.numpy()
        driver.start(3, 7)
        got = [driver(target[:, :3], np.ones((3, 3), np.int64)).copy()]
        for n in range(3, 7):
            got.append(driver(target[:, n : n + 1], np.ones((3, n + 1), np.int64)).copy())
        # Two layers in float32, logits of size about 5: rounding, and nothing like a wrong key.
        np.testing.assert_allclose(np.stack(got, 1), wanted[:, 2:], atol=1e-4)


def test_reorder_moves_the_past_and_not_the_source(seq2seq):
    driver = seq2seq._generator().decoder
    rows, step = np.array([1, 1, 3, 2, 4, 5]), np.array([[9], [8], [7], [6], [5], [4]])
    begin, second = np.full((6, 1), 1), np.array([[11], [12], [13], [14], [15], [16]])
    ones = [np.ones((6, n), np.int64) for n in (1, 2, 3)]

    def run(second, rows):
        sources(driver, ROWS)
        driver.start(6, 3)
        driver(begin, ones[0])
        driver(second, ones[1])
        kept = {n: v.data_ptr() for n, v in driver._values.items() if n not in driver._carried}
        if rows is not None:
            driver.reorder(rows)
        logits = driver(step, ones[2]).copy()
        assert len(kept) == 6
        assert kept == {name: driver._values[name].data_ptr() for name in kept}
        return logits

    np.testing.assert_allclose(run(second, rows), run(second[rows], None), atol=1e-5)
    assert np.abs(run(second, rows) - run(second, None)).max() > 1e-2


def test_beams_share_what_their_source_gave(seq2seq):
    """One beam or three of each source: the same logits, and the encoder runs once."""
    driver = seq2seq._generator().decoder
    target = np.array([[4, 9], [5, 8], [6, 7]])
    results = []
    for beams in (1, 3):
        sources(driver, ROWS)
        driver.start(3 * beams, 2)
        first = driver(target[:, :1].repeat(beams, 0), None).copy()
        second = driver(target[:, 1:].repeat(beams, 0), None).copy()
        results.append((first[::beams], second[::beams], second[beams - 1 :: beams]))
    for one, several in zip(*results, strict=True):
        np.testing.assert_allclose(several, one, atol=1e-5)


def test_the_driver_refuses_what_does_not_fit(seq2seq):
    driver = OrtEncoderDecoder(*seq2seq.sessions, 283, max_source_length=4)
    with pytest.raises(InputError, match="a source has 5 tokens, and the model takes 4"):
        sources(driver, ROWS)
    sources(driver, ROWS[1:])
    driver.start(2, 3)
    with pytest.raises(InputError, match="longer than the 3 tokens planned"):
        driver(np.full((2, 4), 5), None)


def test_graphs_that_do_not_belong_together(seq2seq):
    with pytest.raises(BundleError, match="which neither graph gives out"):
        OrtEncoderDecoder(seq2seq.sessions[1], seq2seq.sessions[1], 283)
    with pytest.raises(BundleError, match="takes attention_mask, which neither graph gives out"):
        OrtEncoderDecoder(seq2seq.sessions[0], seq2seq.sessions[0], 283)


@pytest.fixture
def copy(seq2seq_bundle, tmp_path):
    return shutil.copytree(seq2seq_bundle, tmp_path / "bundle")


@pytest.mark.parametrize("name", ["encoder_model.onnx", "decoder_model_merged.onnx", "config.json"])
def test_missing_parts(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"is not a bundle: {name} is missing"):
        runtime.load(copy)


@pytest.mark.parametrize("name", ["encoder_model.onnx", "decoder_model_merged.onnx"])
def test_both_graphs_are_checked(copy, name):
    model = onnx.load(copy / name)
    (copy / "parity.json").unlink()
    options = {"location": "weights", "size_threshold": 1024}
    onnx.save(model, copy / name, save_as_external_data=True, **options)
    weights = copy / "weights"
    runtime.load(copy, threads=1).generate("the", max_new_tokens=1)
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BundleError, match=f"and {name} needs .*: it is cut off"):
        runtime.load(copy)
    weights.unlink()
    weights.symlink_to(copy.parent / "elsewhere")
    with pytest.raises(BundleError, match=f"{name} keeps weights in 'weights', which is outside"):
        runtime.load(copy)


def test_parity_must_match(copy):
    runtime.load(copy, check=True, threads=1)
    file = copy / "encoder_model.onnx"
    model = onnx.load(file)
    model.doc_string = "other"
    onnx.save(model, file)
    with pytest.raises(BundleError, match="encoder_model.onnx is not the file that parity.json"):
        runtime.load(copy)


def test_a_bundle_that_does_not_say_its_task(copy):
    for name in ("encoder_model.onnx", "decoder_model_merged.onnx"):
        model = onnx.load(copy / name)
        del model.metadata_props[:]
        onnx.save(model, copy / name)
    (copy / "parity.json").unlink()
    model = runtime.load(copy, threads=1)
    assert model.task == "seq2seq_lm"
    assert model.summarize("the cat")


def test_without_a_tokenizer(copy):
    for name in ("tokenizer.json", "tokenizer_config.json", "parity.json"):
        (copy / name).unlink()
    model = runtime.load(copy, threads=1)
    assert len(model.generate([5, 6], max_new_tokens=2)) <= 2
    for method in ("translate", "summarize"):
        with pytest.raises(BundleError, match=f"{method} needs text, and this bundle has no tok"):
            getattr(model, method)("text")
