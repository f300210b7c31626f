"""`inspect`: the structure of a file, without its weights."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_seqattn.errors import BundleError
from keras_seqattn.inspection import inspect
from keras_seqattn.memory import size_text
from keras_seqattn.runtime.bundle import graph_names

pytestmark = pytest.mark.backend_free


@pytest.fixture
def file(tmp_path):
    """A graph of 2 x (MatMul, Relu) with external weights, an int4 tensor and an If."""
    weights = [np.ones((7, 7), "float32"), np.ones((7, 7), "float32"), np.zeros(3, "int64")]
    tensors = [numpy_helper.from_array(w, f"layers_{i}/kernel") for i, w in enumerate(weights)]
    tensors.append(helper.make_tensor("packed", TensorProto.INT4, [5], [1, 2, 3, 4, 5]))
    branch = helper.make_graph(
        [helper.make_node("Identity", ["b"], ["c"])],
        "branch",
        [],
        [helper.make_tensor_value_info("c", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "layers_0/kernel"], ["a"]),
        helper.make_node("MatMul", ["a", "layers_1/kernel"], ["b"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
        helper.make_node("FastGelu", ["y"], ["z"], domain="com.microsoft"),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch_size", 7]),
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch_size", 7])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])
    helper.set_model_props(model, {"keras_seqattn.task": "embedding"})
    onnx.save(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        location="w.data",
        size_threshold=8,
    )
    return tmp_path / "model.onnx"


def test_counts_shapes_and_sizes(file):
    found = inspect(file)
    assert found.metadata == {"keras_seqattn.task": "embedding"}
    (graph,) = found.graphs
    assert [str(tensor) for tensor in graph.inputs] == ["x  float (batch_size, 7)", "flag  bool ()"]
    assert found.operators == {"MatMul": 2, "Identity": 2, "If": 1, "com.microsoft.FastGelu": 1}
    sizes = {tensor.name: tensor.size for tensor in graph.initializers}
    # Five 4-bit numbers take three bytes.
    expected = {"layers_0/kernel": 196, "layers_1/kernel": 196, "layers_2/kernel": 24, "packed": 3}
    assert sizes == expected
    assert found.files == {
        name: (file.parent / name).stat().st_size for name in ("model.onnx", "w.data")
    }


def test_the_report_groups_layers_and_needs_no_weights(file):
    (file.parent / "w.data").unlink()
    report = str(inspect(file))
    assert "392 bytes   94%  layers_*/kernel  float (7, 7) x 2" in report
    assert report == str(inspect(file.parent)).replace(f"{file.parent}\n", f"{file}\n", 1)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a"])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is not an ONNX file"):
        inspect(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BundleError, match="model.onnx does not exist"):
        inspect(tmp_path)


def test_a_file_that_is_longer_than_protobuf_allows(tmp_path):
    with open(tmp_path / "model.onnx", "wb") as file:
        file.truncate(8 << 30)
    with pytest.raises(BundleError, match="has 8589934592 bytes, and an ONNX file at most"):
        inspect(tmp_path / "model.onnx")


def test_the_graphs_are_those_that_the_runtime_opens(file):
    """Only where there is no model.onnx, those of an encoder-decoder."""
    folder, parts = file.parent, ("encoder_model.onnx", "decoder_model_merged.onnx")
    for name in parts:
        (folder / name).write_bytes(file.read_bytes())
    assert [graph.file for graph in inspect(folder).graphs] == ["model.onnx"]
    assert graph_names(folder) == ("model.onnx",)
    file.unlink()
    assert tuple(graph.file for graph in inspect(folder).graphs) == graph_names(folder) == parts


def test_sizes_for_people_are_those_of_the_other_reports(file):
    (file.parent / "w.data").write_bytes(bytes(3 << 20))
    assert f"{size_text(3 << 20)}  w.data" in str(inspect(file.parent))
