"""Rows of several tensors or several variables, and the other names of tied weights."""

import json
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.numpy

from keras_seqattn.errors import CheckpointError, ConfigError
from keras_seqattn.weights.checkpoint import Checkpoint
from keras_seqattn.weights.directory import open_directory
from keras_seqattn.weights.rows import WeightRow, fused_rows
from keras_seqattn.weights.table import Table, count_layers, load_weights, stored_tensors

pytestmark = pytest.mark.backend_free

M, H, G, D, F, E = 5, 6, 2, 3, 7, 4
N = H // G
QKV = ("layers_0/query/kernel", "layers_0/key/kernel", "layers_0/value/kernel")


class Weights(keras.layers.Layer):
    """Variables of these paths, and nothing to compute with them."""

    def __init__(self, shapes, **kwargs):
        super().__init__(**kwargs)
        self.shapes = {}
        inside = {}
        for path, shape in shapes.items():
            layer, _, part = path.rpartition("/")
            (inside.setdefault(layer, {}) if layer else self.shapes)[part] = shape
        self.inside = [Weights(shapes, name=name) for name, shapes in inside.items()]

    def build(self, shape):
        self.parts = [self.add_weight(shape=s, name=name) for name, s in self.shapes.items()]
        for layer in self.inside:
            layer.build(shape)

    def call(self, x):
        return x


def model_of(shapes):
    """A model with variables of these paths and shapes."""
    x = inputs = keras.Input((1,))
    layers = {}
    for path, shape in shapes.items():
        layer, _, part = path.partition("/")
        layers.setdefault(layer, {})[part] = shape
    for name, parts in layers.items():
        x = Weights(parts, name=name)(x)
    return keras.Model(inputs, x)


def checkpoint_of(tensors, aliases=None):
    shapes = {name: value.shape for name, value in tensors.items()}
    return Checkpoint(Path("x"), {}, {}, shapes, tensors.__getitem__, aliases or {})


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def loaded(model, tensors, rows, **options):
    load_weights(model, checkpoint_of(tensors), Table(body=tuple(rows)), **options)
    return {v.path: keras.ops.convert_to_numpy(v.value) for v in model.variables}


def check_written(model, tensors, rows):
    """What is written has the names, the shapes and the bits of what was read."""
    shapes, read = stored_tensors(model, Table(body=tuple(rows)), prefixed=True)
    assert shapes == {name: value.shape for name, value in tensors.items()}
    for name, value in tensors.items():
        np.testing.assert_array_equal(read(name), value, err_msg=name)


def thirds(weight):
    """GPT-2's Conv1D: inputs first, and queries, keys and values one after the other."""
    return np.split(weight, 3, axis=1)


def by_head(weight):
    """GPT-NeoX and BLOOM: for each head its query, its key and its value."""
    heads = weight.reshape(H, 3, D, M)
    return [heads[:, part].reshape(H * D, M).T for part in range(3)]


def by_group(weight):
    """Falcon: for each group its queries, then one key and one value."""
    groups = weight.reshape(G, N + 2, D, M)
    parts = groups[:, :N], groups[:, N], groups[:, N + 1]
    return [part.reshape(-1, M).T for part in parts]


def in_rows(weight):
    """Phi-3: rows of all queries, then of the fewer keys and values."""
    return [part.T for part in np.split(weight, [H * D, (H + G) * D])]


FUSED = {
    "gpt2": ("i p -> i p", {}, (M, 3 * H * D), (H, H), thirds),
    "gpt_neox": ("(h p d) i -> i (h p d)", {"h": H, "d": D}, (3 * H * D, M), (H, H), by_head),
    "falcon": ("(g p d) i -> i (g p d)", {"g": G, "d": D}, ((H + 2 * G) * D, M), (H, G), by_group),
    "phi3": ("p i -> i p", {}, ((H + 2 * G) * D, M), (H, G), in_rows),
}


@pytest.mark.parametrize("name", FUSED)
def test_one_tensor_of_several_variables(name):
    axes, sizes, shape, (heads, groups), definition = FUSED[name]
    widths = [heads * D, groups * D, groups * D]
    paths = [path.removesuffix("/kernel") for path in QKV]
    model = model_of(
        {f"{p}/kernel": (M, width) for p, width in zip(paths, widths, strict=True)}
        | {f"{p}/bias": (width,) for p, width in zip(paths, widths, strict=True)}
    )
    rows = fused_rows("h.{i}.qkv", [p.replace("0", "{i}") for p in paths], axes, "p", **sizes)
    tensors = {"h.0.qkv.weight": normal(*shape), "h.0.qkv.bias": normal(sum(widths), seed=1)}
    values = loaded(model, tensors, rows)
    for path, expected in zip(QKV, definition(tensors["h.0.qkv.weight"]), strict=True):
        np.testing.assert_array_equal(values[path], expected, err_msg=path)
    # A bias is a weight whose inputs are one.
    like_weight = np.ones((1, M), "float32") * tensors["h.0.qkv.bias"][:, None]
    like_weight = like_weight.T if name == "gpt2" else like_weight
    for path, expected in zip(paths, definition(like_weight), strict=True):
        np.testing.assert_array_equal(values[f"{path}/bias"], expected[0], err_msg=path)
    check_written(model, tensors, rows)
    assert count_layers(checkpoint_of(tensors), Table(body=rows)) == 1


EXPERTS = (
    WeightRow("layers.{i}.experts.{e}.w1.weight", "layers_{i}/experts/gate", "f m -> e m f"),
    WeightRow("layers.{i}.experts.{e}.w2.weight", "layers_{i}/experts/down", "m f -> f e m"),
)


def expert_model():
    return model_of({"layers_0/experts/gate": (E, M, F), "layers_0/experts/down": (F, E, M)})


def expert_tensors(count=E):
    name = "layers.0.experts.{}.{}.weight".format
    gates = {name(e, "w1"): normal(F, M, seed=e) for e in range(count)}
    return gates | {name(e, "w2"): normal(M, F, seed=100 + e) for e in range(count)}


def test_tensors_of_many_experts_are_stacked():
    model, tensors = expert_model(), expert_tensors()
    values = loaded(model, tensors, EXPERTS)
    for e in range(E):
        weight = tensors[f"layers.0.experts.{e}.w1.weight"]
        np.testing.assert_array_equal(values["layers_0/experts/gate"][e], weight.T)
        weight = tensors[f"layers.0.experts.{e}.w2.weight"]
        np.testing.assert_array_equal(values["layers_0/experts/down"][:, e], weight.T)
    check_written(model, tensors, EXPERTS)


def test_stacked_tensors_that_are_missing_or_too_many_are_named_together():
    tensors = expert_tensors(count=E + 1)
    del tensors["layers.0.experts.2.w1.weight"]
    tensors["layers.0.experts.1.w2.weight"] = normal(F, M)
    with pytest.raises(CheckpointError) as caught:
        loaded(expert_model(), tensors, EXPERTS)
    message = str(caught.value)
    assert "missing: layers.0.experts.2.w1.weight" in message
    assert "unexpected: layers.0.experts.4.w1.weight, layers.0.experts.4.w2.weight" in message
    assert "mis-shaped: layers.0.experts.1.w2.weight is (7, 5), expected (5, 7)" in message


def test_stacked_tensors_that_hold_two_variables():
    row = WeightRow("experts.{e}.gate_up", ("experts/gate", "experts/up"), "p m -> e m p", "p")
    model = model_of({"experts/gate": (E, M, F), "experts/up": (E, M, F)})
    tensors = {f"experts.{e}.gate_up": normal(2 * F, M, seed=e) for e in range(E)}
    values = loaded(model, tensors, [row])
    for e in range(E):
        gate, up = np.split(tensors[f"experts.{e}.gate_up"], 2)
        np.testing.assert_array_equal(values["experts/gate"][e], gate.T)
        np.testing.assert_array_equal(values["experts/up"][e], up.T)
    check_written(model, tensors, [row])


@pytest.mark.parametrize("sizes", [{}, {"p": (F, M)}], ids=["equal", "unequal"])
def test_one_variable_of_several_tensors(sizes):
    widths = sizes.get("p", (F, F))
    row = WeightRow(("gate.weight", "up.weight"), "mlp/kernel", "p m -> m p", "p", sizes)
    model = model_of({"mlp/kernel": (M, sum(widths))})
    names = ("gate.weight", "up.weight")
    tensors = {n: normal(w, M, seed=w) for n, w in zip(names, widths, strict=True)}
    values = loaded(model, tensors, [row])
    np.testing.assert_array_equal(values["mlp/kernel"], np.concatenate([*tensors.values()]).T)
    check_written(model, tensors, [row])
    del tensors["up.weight"]
    with pytest.raises(CheckpointError, match="missing: up.weight"):
        loaded(model, tensors, [row])


def test_interleaved_halves_and_a_checkpoint_that_may_have_either_form():
    fused = WeightRow("gate_up", ("mlp/gate", "mlp/up"), "m (f p) -> m (f p)", "p", {"f": F})
    rows = [WeightRow("gate", "mlp/gate"), WeightRow("up", "mlp/up"), fused]
    tensor = normal(M, 2 * F)
    for tensors in ({"gate_up": tensor}, {"gate": tensor[:, ::2], "up": tensor[:, 1::2]}):
        values = loaded(model_of({"mlp/gate": (M, F), "mlp/up": (M, F)}), tensors, rows)
        np.testing.assert_array_equal(values["mlp/gate"], tensor[:, ::2])
        np.testing.assert_array_equal(values["mlp/up"], tensor[:, 1::2])
    both = {"gate_up": tensor, "gate": tensor[:, ::2], "up": tensor[:, ::2]}
    with pytest.raises(CheckpointError, match="different, but one in the model: up and gate_up"):
        loaded(model_of({"mlp/gate": (M, F), "mlp/up": (M, F)}), both, rows)


@pytest.mark.parametrize(
    "arguments",
    [
        ("a", ("b", "c"), "p i -> i p"),
        (("a", "b"), ("c", "d"), "p i -> i p", "p"),
        ("a", "b", "p i -> i p", "p"),
        ("a.{e}", "b"),
        ("a.{e}.{f}", "b", "i -> e f i"),
    ],
)
def test_rows_that_do_not_say_how_are_refused(arguments):
    with pytest.raises(ConfigError, match="weight row"):
        WeightRow(*arguments)


def test_sizes_that_do_not_fit_are_refused():
    row = WeightRow("a", ("q/kernel", "k/kernel"), "(h p d) i -> i (h p d)", "p", {"h": 5, "d": D})
    model = model_of({"q/kernel": (M, 12), "k/kernel": (M, 12)})
    with pytest.raises(ConfigError, match="does not fit a variable"):
        stored_tensors(model, Table(body=(row,)), prefixed=True)


def write_with_metadata(path, tensors, metadata):
    safetensors.numpy.save_file(tensors, path, metadata)
    (path.parent / "config.json").write_text("{}")


TIED = (WeightRow("embed.weight", "embed/table"), WeightRow("other", "other/table"))


def test_a_tied_weight_that_is_stored_under_its_other_name(tmp_path):
    tensors = {"lm_head.weight": normal(F, M), "other": normal(E, seed=1)}
    names = {"embed.weight": "lm_head.weight", "format": "pt", "gone": "lost", "note": "other"}
    write_with_metadata(tmp_path / "model.safetensors", tensors, names)
    checkpoint = open_directory(tmp_path)
    assert checkpoint.shape("embed.weight") == (F, M) and checkpoint.shape("gone") is None
    model = model_of({"embed/table": (F, M), "other/table": (E,)})
    load_weights(model, checkpoint, Table(body=TIED, head=(WeightRow("lm_head.weight", None),)))
    (table,) = [v for v in model.variables if v.path == "embed/table"]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(table), tensors["lm_head.weight"])


def test_another_name_fills_no_second_place_with_other_numbers(tmp_path):
    """Both names of a tied weight may be stored; what is stored counts, not what is said of it."""
    tensors = {"lm_head.weight": normal(F, M), "embed.weight": normal(F, M, seed=1)}
    write_with_metadata(tmp_path / "model.safetensors", tensors, {"embed.weight": "lm_head.weight"})
    assert open_directory(tmp_path).aliases == {}


def test_names_in_shards_are_those_of_their_files(tmp_path):
    write_with_metadata(
        tmp_path / "a.safetensors", {"lm_head.weight": normal(F, M)}, {"embed.weight": "other"}
    )
    write_with_metadata(tmp_path / "b.safetensors", {"other": normal(E)}, {"more": "other"})
    files = {"lm_head.weight": "a.safetensors", "other": "b.safetensors"}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": files}))
    assert open_directory(tmp_path).aliases == {"more": "other"}
    (size,) = struct.unpack("<Q", (tmp_path / "a.safetensors").read_bytes()[:8])
    assert size < 1000
