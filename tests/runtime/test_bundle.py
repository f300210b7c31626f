"""What a folder must be before its graph is loaded."""

import hashlib
import json
import shutil

import numpy as np
import onnx
import onnx.external_data_helper
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_seqattn import runtime
from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.runtime.bundle import open_bundle
from keras_seqattn.runtime.external_data import external_files

pytestmark = pytest.mark.backend_free


def external(location, values, offset=0):
    """A tensor of which the model holds only where its data lies."""
    tensor = numpy_helper.from_array(values, "weight")
    onnx.external_data_helper.set_external_data(tensor, location, offset, values.nbytes)
    tensor.ClearField("raw_data")
    return tensor


WEIGHT = np.arange(12, dtype=np.float32)


def write_model(path, tensor, place="initializer"):
    """y = x + weight, with the weight in one of the places where a model may hold tensors."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [12])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [12])
    add = helper.make_node("Add", ["x", "weight"], ["y"])
    nodes, initializers = [add], [tensor]
    if place == "constant":
        nodes, initializers = [helper.make_node("Constant", [], ["weight"], value=tensor), add], []
    if place == "branch":
        branch = helper.make_graph([add], "branch", [], [y], [tensor])
        condition = helper.make_node(
            "Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))
        )
        choice = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        nodes, initializers = [condition, choice], []
    graph = helper.make_graph(nodes, "graph", [x], [y], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    (path / "model.onnx").write_bytes(model.SerializeToString())


@pytest.fixture
def folder(tmp_path):
    """A minimal bundle with external data, in a folder of its own."""
    path = tmp_path / "bundle"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.onnx.data").write_bytes(b"\0" * 64 + WEIGHT.tobytes())
    write_model(path, external("model.onnx.data", WEIGHT, 64))
    return path


def test_external_data_is_loaded(folder):
    model = runtime.load(folder)
    x = np.ones(12, np.float32)
    np.testing.assert_array_equal(model.run(x=x)["y"], x + WEIGHT)
    assert model.task == "unknown"
    with pytest.raises(InputError, match="generate needs .* this one is unknown"):
        model.generate("text")


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
def test_external_files_are_found_wherever_they_are(folder, place):
    write_model(folder, external("model.onnx.data", WEIGHT, 64), place)
    assert external_files(folder / "model.onnx") == {"model.onnx.data": 112}
    write_model(folder, numpy_helper.from_array(WEIGHT, "weight"), place)
    assert external_files(folder / "model.onnx") == {}


@pytest.mark.parametrize(
    "operator, inputs",
    [
        ("Sum", ["x", ""]),
        ("Max", ["x", "", "weight"]),
        ("Min", ["x", ""]),
        ("Mean", ["x", ""]),
        ("Einsum", ["x", ""]),
        ("LayerNormalization", ["x", "weight", ""]),
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_node_that_would_end_the_process(folder, operator, inputs, nested):
    write_model(folder, numpy_helper.from_array(WEIGHT, "weight"), "branch" if nested else "")
    model = onnx.load(folder / "model.onnx")
    graph = model.graph.node[-1].attribute[0].g if nested else model.graph
    graph.node[0].op_type = operator
    graph.node[0].input[:] = inputs
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match=rf"model.onnx: a node {operator} lacks an input$"):
        runtime.load(folder)


def test_names_that_are_no_text(folder):
    write_model(folder, numpy_helper.from_array(WEIGHT, "weight"))
    whole = (folder / "model.onnx").read_bytes()
    model = onnx.load_from_string(whole)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "tokens"
    (folder / "model.onnx").write_bytes(model.SerializeToString().replace(b"tokens", b"toke\xffs"))
    with pytest.raises(BundleError, match="cannot load .*model.onnx"):
        runtime.load(folder)


@pytest.mark.parametrize("place", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "{absolute}", "link"])
def test_external_data_outside_the_bundle(folder, place, location):
    secret = folder.parent / "secret"
    secret.write_bytes(b"x" * 48)
    (folder / "link").symlink_to(secret)
    location = location.format(absolute=secret)
    write_model(folder, external(location, WEIGHT), place)
    with pytest.raises(BundleError, match="outside the bundle: such a file is not opened"):
        runtime.load(folder)


def test_external_data_that_is_cut_off_or_missing(folder):
    data = folder / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(BundleError, match="has 111 bytes, and model.onnx needs 112: it is cut off"):
        runtime.load(folder)
    data.unlink()
    with pytest.raises(BundleError, match="model.onnx.data is missing: model.onnx keeps weights"):
        runtime.load(folder)


def test_model_files_that_are_none(folder):
    model = folder / "model.onnx"
    whole = model.read_bytes()
    for size in range(1, len(whole)):
        model.write_bytes(whole[:size])
        with pytest.raises(BundleError, match="model.onnx"):
            runtime.load(folder)
    for content in (b"", b"\xff" * 99, b"PK\x03\x04 a zip", b"<html></html>"):
        model.write_bytes(content)
        with pytest.raises(BundleError, match="model.onnx"):
            runtime.load(folder)


@pytest.mark.parametrize("name", ["model.onnx", "config.json"])
def test_missing_parts(folder, name):
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"is not a bundle: {name} is missing"):
        runtime.load(folder)


def test_no_folder(folder):
    for path in (folder / "model.onnx", folder / "nothing", ""):
        with pytest.raises(BundleError, match="is not a folder|is not a bundle"):
            runtime.load(path)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "parity.json"])
def test_broken_json(folder, name):
    (folder / name).write_text('{"a": ')
    with pytest.raises(BundleError, match=f"{name} is not valid JSON"):
        runtime.load(folder)
    (folder / name).write_text("[]")
    with pytest.raises(BundleError, match=f"{name} must hold a JSON object"):
        runtime.load(folder)


def test_parity_must_match(decoder_bundle, tmp_path, monkeypatch):
    bundle = shutil.copytree(decoder_bundle, tmp_path / "bundle")
    open_bundle(bundle, check=True)
    changed = bundle / "tokenizer.json"
    original = changed.read_bytes()
    for content in (original.replace(b"<|end|>", b"<|dne|>", 1), original + b" "):
        changed.write_bytes(content)
        with pytest.raises(BundleError, match="tokenizer.json is not the file that parity.json"):
            open_bundle(bundle)
    # Large files: the size always, the digest on demand.
    monkeypatch.setattr("keras_seqattn.runtime.bundle._HASHED_ALWAYS", 0)
    with pytest.raises(BundleError, match="tokenizer.json is not the file"):
        open_bundle(bundle)
    changed.write_bytes(original.replace(b"<|end|>", b"<|dne|>", 1))
    open_bundle(bundle)
    with pytest.raises(BundleError, match="tokenizer.json is not the file"):
        open_bundle(bundle, check=True)
    changed.unlink()
    with pytest.raises(BundleError, match="tokenizer.json is missing: parity.json lists it"):
        open_bundle(bundle)


def test_parity_may_not_point_outside(folder):
    (folder.parent / "secret").write_text("x")
    entry = {"../secret": {"sha256": "", "size": 1}}
    (folder / "parity.json").write_text(json.dumps({"files": entry}))
    with pytest.raises(BundleError, match="does not list the bundle's files"):
        open_bundle(folder)
    (folder / "link").symlink_to(folder.parent / "secret")
    entry = {"link": {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}}
    (folder / "parity.json").write_text(json.dumps({"files": entry}))
    with pytest.raises(BundleError, match="lists 'link', which is outside the bundle"):
        open_bundle(folder)
    for files in (None, ["model.onnx"], {"model.onnx": "abc"}, {"model.onnx": {"size": 3}}):
        (folder / "parity.json").write_text(json.dumps({"files": files}))
        with pytest.raises(BundleError, match="parity.json does not list the bundle's files"):
            open_bundle(folder)


def test_folders_of_others_in_a_bundle_are_left_alone(decoder_bundle, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(decoder_bundle, bundle)
    (bundle / "notes").mkdir()
    (bundle / "notes" / "config.json").write_text("[mine]")
    assert "notes/config.json" not in open_bundle(bundle, check=True).assets
    (bundle / "1_Pooling").mkdir()
    (bundle / "1_Pooling" / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="1_Pooling/config.json is not in parity.json"):
        open_bundle(bundle, check=True)


def test_check_needs_parity(folder):
    open_bundle(folder)
    with pytest.raises(BundleError, match="has no parity.json to check against"):
        open_bundle(folder, check=True)


def test_a_graph_that_onnxruntime_refuses(folder):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.node[0].op_type = "NoSuchOperator"
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="onnxruntime cannot load .*NoSuchOperator"):
        runtime.load(folder)


def test_a_graph_with_text_that_is_no_utf8(folder, capfd):
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    model.graph.output[0].name = "XXXX"
    content = model.SerializeToString().replace(b"XXXX", b"X\xfcXX")
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="onnxruntime cannot load"):
        runtime.load(folder)
    assert capfd.readouterr().out == ""


def test_providers(folder):
    model = runtime.load(folder, providers=["CPUExecutionProvider"])
    assert model.session.get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(InputError, match="providers NoProvider are not available; available:"):
        runtime.load(folder, providers=["NoProvider", "CPUExecutionProvider"])


def test_threads(folder):
    assert runtime.load(folder, threads=1).session.get_session_options().intra_op_num_threads == 1
