"""The runtime checks each argument where it enters: one InputError, before anything runs."""

import shutil

import numpy as np
import onnx
import pytest

from keras_seqattn import runtime
from keras_seqattn.errors import InputError, SeqAttnError
from keras_seqattn.ports import METADATA
from keras_seqattn.runtime import Tokenizer
from keras_seqattn.runtime.model import BundleModel

from .conftest import byte_level_tokenizer

pytestmark = pytest.mark.backend_free


def refuses(call, *arguments, **settings):
    """Assert one InputError of one short line; return it."""
    with pytest.raises(InputError) as refused:
        call(*arguments, **settings)
    message = str(refused.value)
    assert message and len(message) < 900 and "\n" not in message
    return message


@pytest.mark.parametrize("path", [None, 3, b"x", [], "\0", "x" * 5000, "\ud800", -1])
def test_load_refuses_what_is_no_path(path):
    refuses(runtime.load, path)


@pytest.mark.parametrize(
    "arguments",
    [
        *({"providers": x} for x in ("x", 3, [], [3], [None], {"a": 1}, ["CPU"], [("x", 3)])),
        *({"threads": x} for x in ("x", 0, -1, 10**9, True, 2.5)),
        *({"check": x} for x in (3, None, "yes")),
    ],
)
def test_load_refuses_other_options(decoder_bundle, arguments):
    assert next(iter(arguments)) in refuses(runtime.load, decoder_bundle, **arguments)


def test_bundles_are_made_by_load():
    refuses(BundleModel, 3)


@pytest.mark.parametrize("method", ["generate", "stream"])
@pytest.mark.parametrize(
    "inputs",
    [
        None,
        3,
        [],
        [[]],
        [None],
        {"a": 1},
        set(),
        iter("a"),
        np.array([1.5]),
        "\ud800",
        ["a", "\udfff"],
    ],
)
def test_prompts_are_refused(decoder, method, inputs):
    refuses(getattr(decoder, method), inputs, max_new_tokens=2)


def test_texts_with_nul_are_texts(decoder):
    assert isinstance(decoder.generate("a\0b", max_new_tokens=2), str)


@pytest.mark.parametrize(
    "settings",
    [
        {"special_tokens": True},
        {"as_text": True},
        {"attention_mask": [1]},
        {"file": 3},
        {"stream": 3},
    ],
)
def test_chat_takes_settings_of_generation_only(decoder, settings):
    refuses(decoder.chat, "a", **settings)


@pytest.mark.parametrize("settings", [{"num_beams": 10**9}, {"num_beams": 10**12}])
def test_beams_beyond_memory_are_refused(decoder, seq2seq, settings):
    for model in (decoder, seq2seq):
        message = refuses(model.generate, [5, 6], max_new_tokens=2, **settings)
        assert "of memory" in message and "lower num_beams" in message


def test_tokens_beyond_memory_are_refused(decoder, seq2seq):
    assert "context of 211" in refuses(decoder.stream, "a", max_new_tokens=10**12)
    assert "lower max_new_tokens" in refuses(seq2seq.stream, "a", max_new_tokens=10**12)
    assert "of memory" in refuses(seq2seq.generate, np.full(200_000, 5), max_new_tokens=2)


@pytest.mark.parametrize("texts", [None, 3, 2.5, {"a": 1}, {"a"}, [["a"]], "\ud800", np.array(3)])
def test_texts_are_refused(embedder, seq2seq, texts):
    refuses(embedder[0].embed, texts)
    refuses(seq2seq.summarize, texts)
    refuses(seq2seq.translate, texts, target="de")


@pytest.mark.parametrize(
    "options",
    [
        *({"batch_size": x} for x in ("x", 0, True, -1, 1.5, None)),
        *({"truncate": x} for x in ("x", 1, None)),
        *({"normalized": x} for x in ("x", 1)),
    ],
)
def test_options_of_embed_are_checked(embedder, options):
    assert next(iter(options)) in refuses(embedder[0].embed, "the cat", **options)


def test_batches_may_be_larger_than_what_there_is(embedder):
    model = embedder[0]
    np.testing.assert_array_equal(model.embed("a", batch_size=10**12), model.embed("a"))


@pytest.mark.parametrize("name", ["source", "target"])
@pytest.mark.parametrize("language", [3, ["de"], "\ud800"])
def test_languages_are_texts(seq2seq, name, language):
    refuses(seq2seq.translate, "the cat", **{"target": "de", name: language})


def test_run_refuses_what_does_not_fit(embedder):
    model = embedder[0]
    ids = np.ones((2, 3), np.int64)
    good = {"input_ids": ids, "attention_mask": ids, "token_type_ids": 0 * ids}
    wanted = model.run(good)["last_hidden_state"]
    for same in (ids.astype(">i8"), np.asfortranarray(ids), ids[::-1, ::-1], ids.tolist()):
        got = model.run(good | {"input_ids": same})["last_hidden_state"]
        np.testing.assert_array_equal(got, wanted)
    for inputs in (3, None, [ids], "x", good | {3: ids}, good | {"x" * 10**5: ids}, {}):
        refuses(model.run, inputs)
    bad = [None, 3, "x", {"a": 1}, [[1], [1, 2]], ids.astype(object), ids.astype("U"), ids * 1.5]
    bad += [ids[:1], ids[:, :0], ids[:0], ids[None], -ids, ids + 10**6]
    bad += [np.uint64(2**63) * ids.astype("u8"), np.broadcast_to(np.int8(1), (10**6, 10**6))]
    for value in bad:
        for name in ("input_ids", "attention_mask"):
            refuses(model.run, good | {name: value})
    refuses(model.run, good | {"attention_mask": 2 * ids})
    for name, value in (("token_type_ids", ids + 1), ("token_type_ids", ids + 10**6)):
        assert "its values must be below 2" in refuses(model.run, good | {name: value})
    long = np.ones((1, 4000), np.int64)
    longs = {"input_ids": long, "attention_mask": long, "token_type_ids": 0 * long}
    assert "the model takes at most 41" in refuses(model.run, longs)


def test_errors_of_onnxruntime_are_raised_and_not_written(embedder, tmp_path, capfd):
    """Where a file says nothing about its ports, onnxruntime finds what is wrong: in one line."""
    shutil.copytree(embedder[0].bundle.path, tmp_path / "older")
    (tmp_path / "older/parity.json").unlink()
    graph = onnx.load(tmp_path / "older/model.onnx")
    kept = [entry for entry in graph.metadata_props if entry.key != METADATA]
    assert len(kept) == len(graph.metadata_props) - 1
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    onnx.save(graph, tmp_path / "older/model.onnx")
    model = runtime.load(tmp_path / "older")
    ids = np.ones((1, 3), np.int64)
    message = refuses(model.run, input_ids=ids, attention_mask=ids, token_type_ids=ids + 9)
    assert "model.onnx: the graph cannot run these inputs" in message
    assert capfd.readouterr().err == ""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer({"tokenizer.json": byte_level_tokenizer().to_str().encode()})


@pytest.mark.parametrize("text", [None, 3, ["a"], b"a", "\ud800"])
def test_tokenizers_encode_texts(tokenizer, text):
    refuses(tokenizer.encode, text)
    refuses(tokenizer.encode_batch, [text])
    refuses(tokenizer.encode_batch, ["a"], [text])
    refuses(tokenizer.encode_batch, ["a", "b"], ["a"])


@pytest.mark.parametrize(
    "ids", [None, 3, [-1], [2**32], [2**70], ["x"], [1.5], [None], "abc", {1: 2}]
)
def test_tokenizers_decode_ids(tokenizer, ids):
    refuses(tokenizer.decode, ids)


@pytest.mark.parametrize("length", [0, -1, 2**32, 2**64, "x", 1.5, True])
def test_tokenizers_check_lengths(tokenizer, length):
    refuses(tokenizer.encode_batch, ["a"], max_length=length)


def test_settings_of_files_are_checked(decoder_bundle, tmp_path):
    import json
    import shutil

    bundle = shutil.copytree(decoder_bundle, tmp_path / "bundle")
    (bundle / "parity.json").unlink(missing_ok=True)
    for file in ({"temperature": "x"}, {"eos_token_id": {"a": 1}}, {"num_beams": [2]}):
        (bundle / "generation_config.json").write_text(json.dumps(file))
        with pytest.raises(SeqAttnError, match=next(iter(file))):
            runtime.load(bundle, threads=1).generate("a")
