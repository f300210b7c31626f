"""Faults in the files of a bundle: each is one BundleError that names the file."""

import json
import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_seqattn import runtime
from keras_seqattn.errors import BundleError, SeqAttnError
from keras_seqattn.runtime.bundle import open_bundle
from keras_seqattn.runtime.config import label_names
from keras_seqattn.runtime.external_data import external_files
from keras_seqattn.runtime.pooling import Pooling
from keras_seqattn.runtime.tokenizer import Tokenizer

from .conftest import byte_level_tokenizer

pytestmark = pytest.mark.backend_free
TOKENIZER = byte_level_tokenizer().to_str().encode()


@pytest.fixture
def folder(tmp_path):
    """A minimal bundle: y = x + 1."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [3])
    one = numpy_helper.from_array(np.ones(3, np.float32), "one")
    graph = helper.make_graph([helper.make_node("Add", ["x", "one"], ["y"])], "g", [x], [y], [one])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "model.onnx").write_bytes(model.SerializeToString())
    (path / "config.json").write_text("{}")
    return path


def copy_of(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    (copy / "parity.json").unlink()
    return copy


@pytest.mark.parametrize(
    "config",
    [
        {"vocab_size": "x"},
        {"vocab_size": 0},
        {"vocab_size": 3.5},
        {"vocab_size": True},
        {"vocab_size": 10**30},
        {"vocab_size": [7]},
        {"max_position_embeddings": -1},
        {"max_position_embeddings": "many"},
        {"max_encoder_position_embeddings": {}},
        {"model_type": 3},
        {"id2label": ["a"]},
        {"id2label": {"x": "a"}},
        {"id2label": {"-1": "a"}},
        {"id2label": {"0": "a", "00": "b"}},
        {"id2label": {"0": 3}},
        {"problem_type": "guess"},
        {"problem_type": []},
        {"task_specific_params": []},
        {"task_specific_params": {"summarization": 3}},
        {"task_specific_params": {"translation_en_to_de": {"prefix": 3}}},
    ],
    ids=str,
)
def test_config(folder, config):
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BundleError, match=f"config.json: {next(iter(config))} is .*must be"):
        open_bundle(folder)


def test_config_may_say_nothing(folder):
    names = ("vocab_size", "max_position_embeddings", "id2label", "task_specific_params")
    (folder / "config.json").write_text(json.dumps(dict.fromkeys(names)))
    assert open_bundle(folder).config == dict.fromkeys(names)


@pytest.mark.parametrize(
    "content", [b"[1]", b"3", b"\xff{}", b'{"a": ', b'{"a": "\\ud800"}', b"[" * 10**5, b""]
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "parity.json"])
def test_what_is_no_json_object(folder, name, content):
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError, match=name):
        open_bundle(folder)


@pytest.mark.parametrize(
    "name", ["model.onnx", "config.json", "generation_config.json", "tokenizer.json", "parity.json"]
)
@pytest.mark.parametrize("kind", ["folder", "pipe", "link out", "loop", "long"])
def test_what_is_no_file(folder, name, kind):
    file = folder / name
    file.unlink(missing_ok=True)
    if kind == "folder":
        file.mkdir()
    elif kind == "pipe":
        os.mkfifo(file)
    elif kind == "link out":
        (folder.parent / "secret").write_text("{}")
        file.symlink_to(folder.parent / "secret")
    elif kind == "loop":
        file.symlink_to(name)
    else:
        file.touch()
        os.truncate(file, 1 << 33)
    if name == "parity.json" and kind in ("folder", "pipe", "loop"):
        open_bundle(folder)  # as if there were none
        return
    if name == "model.onnx" and kind == "long":
        with pytest.raises(BundleError, match="fields: it is not a model"):
            open_bundle(folder)
        return
    with pytest.raises(BundleError, match=name):
        open_bundle(folder)


@pytest.mark.parametrize(
    "entries",
    [
        {"a\0b": {"size": 1, "sha256": "0" * 64}},
        {"/etc/passwd": {"size": 1, "sha256": "0" * 64}},
        {"x" * 300: {"size": 1, "sha256": "0" * 64}},
        {"config.json": {"size": 2.0, "sha256": "0" * 64}},
        {"config.json": {"size": "2", "sha256": "0" * 64}},
        {"config.json": {"size": 2, "sha256": 3}},
        {"config.json": [2, "0" * 64]},
        {},
        3,
    ],
    ids=lambda entries: str(entries)[:40],
)
def test_parity(folder, entries):
    (folder / "parity.json").write_text(json.dumps({"files": entries}))
    with pytest.raises(BundleError, match="parity.json"):
        open_bundle(folder)


def test_with_check_every_file_must_be_listed(decoder_bundle, tmp_path):
    bundle = shutil.copytree(decoder_bundle, tmp_path / "bundle")
    listing = json.loads((bundle / "parity.json").read_bytes())
    del listing["files"]["tokenizer.json"]
    (bundle / "parity.json").write_text(json.dumps(listing))
    open_bundle(bundle)
    with pytest.raises(BundleError, match="tokenizer.json is not in parity.json"):
        open_bundle(bundle, check=True)


@pytest.mark.parametrize(
    "place",
    [
        {"offset": "-5"},
        {"length": "-5"},
        {"length": "1" + "0" * 30},
        {"offset": "x"},
        {"length": "9" * 9999},
        {"location": "a\0b"},
        {"location": ""},
        {"location": "."},
        {"location": "x" * 300},
        {"location": "/etc/passwd"},
    ],
    ids=lambda place: str(place)[:30],
)
def test_places_of_weights(folder, place):
    model = onnx.load(folder / "model.onnx")
    (folder / "data").write_bytes(b"\0" * 12)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in ({"location": "data", "offset": "0", "length": "12"} | place).items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError):
        open_bundle(folder)


def test_a_graph_of_empty_fields_is_read_for_a_moment_only(folder):
    # Graphs of no size, and tensors of no size in one graph.
    (folder / "model.onnx").write_bytes(b"\x3a\x00" * 1_000_001)
    with pytest.raises(BundleError, match="more than 1000000 fields: it is not a model"):
        external_files(folder / "model.onnx")


@pytest.mark.parametrize(
    "limit", ["x", 0, -1, float("nan"), True, [512], {"a": 1}, 0.5, -float("inf")], ids=str
)
def test_model_max_length(limit):
    assets = {"tokenizer.json": TOKENIZER}
    assets["tokenizer_config.json"] = json.dumps({"model_max_length": limit}).encode()
    with pytest.raises(BundleError, match="tokenizer_config.json: model_max_length is"):
        Tokenizer(assets)


@pytest.mark.parametrize("content", [b'{"a": 1}', b"3", b"[]", b"null", b"{}", b"\xff", b""])
def test_what_is_no_tokenizer(content):
    with pytest.raises(BundleError, match="tokenizer.json cannot be read"):
        Tokenizer({"tokenizer.json": content})
    with pytest.raises(BundleError, match="tokenizer_config.json"):
        config = content if content != b'{"a": 1}' and content != b"{}" else b"3"
        Tokenizer({"tokenizer.json": TOKENIZER, "tokenizer_config.json": config})


def test_a_token_id_in_the_billions():
    content = json.loads(TOKENIZER)
    content["model"]["vocab"]["x"] = 2**31 - 1
    with pytest.raises(BundleError, match="tokenizer.json gives a token the id 2147483647"):
        Tokenizer({"tokenizer.json": json.dumps(content).encode()})


def test_a_tokenizer_whose_library_panics():
    """A post-processor that names a special token it does not define."""
    content = json.loads(TOKENIZER)
    pieces = [{"SpecialToken": {"id": "a", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    content["post_processor"] = {"type": "TemplateProcessing", "single": pieces, "pair": pieces}
    content["post_processor"]["special_tokens"] = {}
    with pytest.raises(SeqAttnError, match="tokenize|tokenizer.json"):
        Tokenizer({"tokenizer.json": json.dumps(content).encode()}).encode("the cat")


@pytest.mark.parametrize(
    "files",
    [
        {"modules.json": {}},
        {"modules.json": [3]},
        {"modules.json": [{"path": "1_Pooling"}]},
        {"modules.json": [{"type": 3}]},
        {"modules.json": [{"type": "x.Pooling", "path": 3}]},
        {"modules.json": [{"type": "x.Pooling", "path": "2_Other"}]},
        {"modules.json": [{"type": "x." + "y" * 10**5}]},
        {"1_Pooling/config.json": []},
        {"1_Pooling/config.json": {"pooling_mode": 3}},
        {"1_Pooling/config.json": {"pooling_mode": []}},
        {"1_Pooling/config.json": {"pooling_mode": [3]}},
        {"1_Pooling/config.json": {"pooling_mode": ["mean"] * 1000}},
        {"1_Pooling/config.json": {"pooling_mode": "median"}},
        {"1_Pooling/config.json": {"pooling_mode_cls_token": "yes"}},
    ],
    ids=lambda files: str(files)[:50],
)
def test_pooling(files):
    assets = {name: json.dumps(value).encode() for name, value in files.items()}
    with pytest.raises(BundleError, match="modules.json|1_Pooling|pooling median") as caught:
        Pooling.from_assets(assets)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("limit", ["x", 0, -3, 1.5, True, [1], 2**40], ids=str)
def test_sentence_bert_config(embedder, tmp_path, limit):
    bundle = copy_of(embedder[0].bundle.path, tmp_path)
    (bundle / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": limit}))
    with pytest.raises(BundleError, match="sentence_bert_config.json: max_seq_length is"):
        runtime.load(bundle, threads=1).embed("the cat")


def test_label_names():
    assert label_names({}, 2) == ["LABEL_0", "LABEL_1"]
    assert label_names({"id2label": {"1": "b", "0": "a"}}, 2) == ["a", "b"]
    for count in (1, 3):
        with pytest.raises(BundleError, match="id2label names 2 labels, and the graph has"):
            label_names({"id2label": {"1": "b", "0": "a"}}, count)


@pytest.mark.parametrize(
    "source", [3, {"a": 1}, [3], [{"name": "x"}], [{"name": 3, "template": ""}]]
)
def test_what_is_no_chat_template(decoder_bundle, tmp_path, source):
    bundle = copy_of(decoder_bundle, tmp_path)
    (bundle / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    with pytest.raises(BundleError, match="chat_template in tokenizer_config.json must be a text"):
        runtime.load(bundle, threads=1).chat("the cat")
    (bundle / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(BundleError, match="chat_template.jinja is not UTF-8"):
        runtime.load(bundle, threads=1).chat("the cat")


@pytest.mark.parametrize(
    "task, message",
    [
        ("seq2seq_lm", "1 graphs, which does not fit its task seq2seq_lm"),
        ("embedding", "does not fit the task embedding"),
        ("token_classification", "does not fit the task token_classification"),
    ],
)
def test_graphs_of_another_task(decoder_bundle, tmp_path, task, message):
    bundle = copy_of(decoder_bundle, tmp_path)
    model = onnx.load(bundle / "model.onnx")
    label = next(x for x in model.metadata_props if x.key == "keras_seqattn.task")
    label.value = task
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=message):
        runtime.load(bundle, threads=1)


def test_vocabularies_that_differ(decoder_bundle, tmp_path):
    bundle = copy_of(decoder_bundle, tmp_path)
    config = json.loads((bundle / "config.json").read_bytes())
    (bundle / "config.json").write_text(json.dumps(config | {"vocab_size": 99}))
    with pytest.raises(BundleError, match="vocab_size is 99, and the graph gives logits of 283"):
        runtime.load(bundle, threads=1)
    (bundle / "config.json").write_text(json.dumps(config | {"vocab_size": None}))
    with pytest.raises(BundleError, match="no vocab_size"):
        runtime.load(bundle, threads=1)


@pytest.mark.parametrize("heads", [10**9, 10**12])
def test_a_graph_whose_caches_fit_into_no_memory(decoder_bundle, tmp_path, heads):
    bundle = copy_of(decoder_bundle, tmp_path)
    model = onnx.load(bundle / "model.onnx")
    for value in model.graph.input:
        if value.name.startswith("past_key_values."):
            value.type.tensor_type.shape.dim[1].dim_value = heads
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(SeqAttnError):
        runtime.load(bundle, threads=1).generate([[1, 2]], max_new_tokens=1)
