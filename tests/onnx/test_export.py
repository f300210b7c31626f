"""What export leaves on disk: a bundle, the same bytes each time, nothing after a failure."""

import hashlib
import json
import os
import subprocess
import sys

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import keras_seqattn.models as models
from keras_seqattn.errors import BundleError, ExportError, InputError
from keras_seqattn.onnx import build_graph, export, lowers, verify, write_onnx
from tests.onnx import tiny


class Doubled(keras.Operation):
    """An operation with a wrong lowering."""

    def call(self, x):
        return x * 2.0

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


@lowers(Doubled)
def doubled(tracer, operation, x):
    return tracer.emit("Neg", [x], sizes=x.sizes, dtype=x.dtype)


def wrong_model():
    x = keras.Input((None, 5), name="x")
    return keras.Model(x, Doubled()(x), name="wrong")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "llama"
    export(tiny.decoder("llama"), folder)
    return folder


def test_bundle_files(bundle):
    names = set(os.listdir(bundle))
    assert {"model.onnx", "config.json", "generation_config.json", "genai_config.json",
            "parity.json"} <= names  # fmt: skip
    assert json.loads((bundle / "config.json").read_text())["model_type"] == "llama"
    onnx.checker.check_model(str(bundle / "model.onnx"))


def test_parity_names_each_file_with_its_digest(bundle):
    parity = json.loads((bundle / "parity.json").read_text())
    assert parity["family"] == "llama" and parity["target"] == "ort"
    assert parity["files"]["model.onnx"]["sha256"] == digest(bundle / "model.onnx")
    assert len(parity["cases"]) == 16 and parity["worst"] <= parity["tolerance"]


def test_decoder_contract(bundle):
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    shapes = {i.name: i.shape for i in session.get_inputs()}
    assert shapes["input_ids"] == ["batch_size", "sequence_length"]
    assert shapes["attention_mask"] == ["batch_size", "total_sequence_length"]
    assert shapes["past_key_values.1.value"] == ["batch_size", 2, "past_sequence_length", 16]
    assert {i.type for i in session.get_inputs()} == {"tensor(int64)", "tensor(float)"}
    assert [o.name for o in session.get_outputs()][:3] == [
        "logits",
        "present.0.key",
        "present.0.value",
    ]


def test_genai_config(bundle):
    decoder = json.loads((bundle / "genai_config.json").read_text())["model"]["decoder"]
    assert decoder["num_key_value_heads"] == 2 and decoder["head_size"] == 16


def test_same_model_same_bytes(bundle, tmp_path):
    export(tiny.decoder("llama"), tmp_path / "again", verify=False)
    assert digest(tmp_path / "again" / "model.onnx") == digest(bundle / "model.onnx")


_EXPORT = """
import sys
from keras_seqattn.onnx import build_graph, build_graphs, export, write_onnx
from tests.onnx import recurrence, tiny
from tests.onnx.test_cache_writes import write_models
from tests.onnx.test_contract import ordered_models
single = {"loops": recurrence.attentive_model()}
for name in ("bert", "big_bird-masked", "longformer-masked"):
    single[name] = tiny.encoder(name)
for name in ("llama-yarn", "llama-deep", "lfm2", "qwen3_next", "transfo_xl", "xlnet"):
    single[name] = tiny.decoder(name)
pairs = {name: tiny.seq2seq(name) for name in tiny.SEQ2SEQ}
for target in ("ort", "portable"):
    for name, model in single.items():
        export(model, f"{sys.argv[1]}/{name}-{target}.onnx", target=target, verify=False)
    for name, model in pairs.items():
        for part, graph in build_graphs(model, target).items():
            write_onnx(graph, f"{sys.argv[1]}/{name}-{target}-{part}.onnx")
for name, model in (write_models() | ordered_models()).items():
    write_onnx(build_graph(model), f"{sys.argv[1]}/{name}.onnx")
"""


@pytest.mark.slow
@pytest.mark.backend_free
def test_every_backend_writes_the_same_bytes(tmp_path):
    digests = []
    for backend in ("tensorflow", "jax", "torch"):
        folder = tmp_path / backend
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": os.getcwd()}
        subprocess.run([sys.executable, "-c", _EXPORT, str(folder)], env=environment, check=True)
        digests.append({name: digest(folder / name) for name in sorted(os.listdir(folder))})
    assert len(digests[0]) > 2 * 10 + 2 * 2 * len(tiny.SEQ2SEQ)
    assert digests[0] == digests[1] == digests[2]


def test_weights_above_the_threshold_go_beside_the_graph(tmp_path):
    big = tiny.BERT | {"vocab_size": 100_003}
    model = models.build("bert", task="embedding", **big)
    export(model, tmp_path / "big", verify=False)
    assert (tmp_path / "big" / "model.onnx").stat().st_size < 1 << 20
    assert (tmp_path / "big" / "model.onnx_data").stat().st_size > 100_003 * 48 * 4
    assert verify(tmp_path / "big", model).ok


def test_one_file_holds_its_weights(tmp_path):
    export(tiny.encoder("bert"), tmp_path / "bert.onnx", verify=False)
    assert os.listdir(tmp_path) == ["bert.onnx"]


def test_a_failed_verification_leaves_nothing(tmp_path):
    with pytest.raises(ExportError, match="nothing was written.*DIFFERS"):
        export(wrong_model(), tmp_path / "wrong")
    assert os.listdir(tmp_path) == []


def test_a_failed_export_keeps_the_old_bundle(tmp_path):
    export(tiny.encoder("bert"), tmp_path / "bundle", verify=False)
    before = digest(tmp_path / "bundle" / "model.onnx")
    with pytest.raises(ExportError):
        export(wrong_model(), tmp_path / "bundle")
    assert os.listdir(tmp_path) == ["bundle"]
    assert digest(tmp_path / "bundle" / "model.onnx") == before


def test_a_folder_that_is_no_bundle_is_not_replaced(tmp_path):
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("text")
    with pytest.raises(ExportError, match="is not a bundle"):
        export(tiny.encoder("bert"), tmp_path / "precious", verify=False)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "text"


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"target": "tpu"}, "unknown target 'tpu'.*ort, portable"),
        ({"precision": "fp4"}, "unknown precision 'fp4'.*int8"),
        ({"route": "jaxpr"}, "unknown route 'jaxpr'"),
        ({"tokenizer": "nowhere"}, "no tokenizer.json in nowhere"),
    ],
)
def test_bad_settings(settings, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export(tiny.encoder("bert"), tmp_path / "out", verify=False, **settings)
    assert os.listdir(tmp_path) == []


@pytest.mark.backend_free
def test_a_bundle_of_a_model_of_fixed_sizes_is_tried_at_these_sizes(tmp_path):
    ids = keras.Input(batch_shape=(2, 5), dtype="int32", name="input_ids")
    model = keras.Model({"input_ids": ids}, keras.layers.Embedding(7, 3)(ids))
    report = export(model, tmp_path / "bundle")
    assert report.ok and report.rehearsed == ["a run on ids"]


class OfAnotherDomain(keras.layers.Layer):
    def __init__(self, domain):
        super().__init__()
        self.domain = domain

    def call(self, x):
        return x * 2.0


@lowers(OfAnotherDomain)
def of_another_domain(tracer, layer, x):
    return tracer.emit("Twice", [x], domain=layer.domain, sizes=x.sizes, dtype=x.dtype)


@pytest.mark.backend_free
def test_a_file_declares_the_domains_of_its_operators():
    x = keras.Input((3,))
    other, own = (keras.Model(x, OfAnotherDomain(d)(x)) for d in ("mine", "com.microsoft"))
    assert build_graph(other).opset_imports == {"": 23, "com.microsoft": 1, "mine": 1}
    assert build_graph(other, "portable").opset_imports == {"": 23, "mine": 1}
    with pytest.raises(ExportError, match="target portable has none"):
        build_graph(own, "portable")


def test_verify_sees_one_wrong_weight(tmp_path):
    model = tiny.encoder("bert")
    graph = build_graph(model)
    write_onnx(graph, tmp_path / "model.onnx")
    assert verify(tmp_path / "model.onnx", model, lengths=[7]).ok
    norm = next(v for v in model.weights if v.path.endswith("layers_1/feed_forward_norm/gamma"))
    norm.assign(keras.ops.convert_to_numpy(norm) + np.eye(1, norm.shape[0], dtype="float32")[0])
    report = verify(tmp_path / "model.onnx", model, lengths=[7])
    assert not report.ok and "DIFFERS" in report.summary()


@pytest.mark.parametrize("make", [tiny.encoder, tiny.seq2seq], ids=["one", "two"])
def test_verify_at_given_lengths(make, tmp_path):
    model = make("bert" if make is tiny.encoder else "transformer")
    report = export(model, tmp_path / "out", lengths=[3, 41])
    names = " ".join(case.name for case in report.cases)
    assert report.ok and "length 3," in names + "," and "length 41" in names
    assert "length 33" not in names
    for lengths in ([0], [], [999999]):
        with pytest.raises(InputError, match="lengths to verify"):
            verify(tmp_path / "out", model, lengths=lengths)


def test_verify_of_a_broken_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(BundleError, match="config.json is missing"):
        verify(tmp_path, tiny.encoder("bert"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BundleError, match="model.onnx is not a complete ONNX file"):
        verify(tmp_path, tiny.encoder("bert"))


def test_a_model_without_inputs_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ExportError, match="give input_signature="):
        build_graph(Subclassed())
