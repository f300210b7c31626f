"""Layers that Keras has quantised, or given LoRA: the files compute with the same integers."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph, export
from tests.helpers import randomise, to_numpy

Q = keras.quantizers
QUANTISED = (layers.Dense, layers.EinsumDense, layers.Embedding, layers.ReversibleEmbedding)
TARGETS = ["ort", "portable"]
# The integers are the same. What is left is the order of float32 sums.
LIMIT = 1e-5


def every_layer(swapped=True):
    """A model of layers that all read its inputs, so that no rounded value enters another layer."""
    x, z = keras.Input((None, 48), name="x"), keras.Input((None, 3, 16), name="z")
    ids = keras.Input((None,), dtype="int32", name="ids")
    tied = layers.ReversibleEmbedding(23, 48, logit_soft_cap=5.0, name="tied")
    untied = layers.ReversibleEmbedding(23, 48, tie_weights=False, name="untied")
    einsum = layers.EinsumDense
    outputs = {
        "dense": layers.Dense(37, activation="gelu", name="dense")(x),
        "one": layers.Dense(1, name="one")(x),
        "plain": einsum("abc,cd->abd", (None, 33), bias_axes="d", name="plain")(x),
        "heads": einsum("abc,cde->abde", (None, 3, 7), bias_axes="de", name="heads")(x),
        "joined": einsum("abde,dec->abc", (None, 29), bias_axes="c", name="joined")(z),
        "inner": einsum("btd,ndh->btnh", (None, 3, 16), name="inner")(x),
        "batched": einsum("abde,def->abdf", (None, 3, 11), name="batched")(z),
        "rows": layers.Embedding(19, 40, name="rows")(ids),
        "tied": tied(ids), "tied_scores": tied(x, reverse=True),
        "untied": untied(ids), "untied_scores": untied(x, reverse=True),
    }  # fmt: skip
    if swapped:
        outputs["swapped"] = einsum("abc,cde->aebd", (7, None, 3), name="swapped")(x)
    return randomise(keras.Model([x, z, ids], outputs, name="every_layer"), seed=3)


def feeds(batch, length):
    random = np.random.default_rng(length)
    return {
        "x": random.normal(size=(batch, length, 48)).astype("float32"),
        "z": random.normal(size=(batch, length, 3, 16)).astype("float32"),
        "ids": random.integers(0, 19, (batch, length)).astype("int32"),
    }


def errors(model, folder, target="ort", inputs=feeds):
    """dict of output -> the largest difference over the largest magnitude, at two sizes."""
    export(model, folder / f"{target}.onnx", target=target, verify=False)
    session = onnxruntime.InferenceSession(folder / f"{target}.onnx")
    names, worst = [output.name for output in session.get_outputs()], {}
    for size in ((2, 5), (1, 1)):
        given = inputs(*size)
        expected = to_numpy(model(given, training=False))
        for name, y in zip(names, session.run(None, given), strict=True):
            assert y.shape == expected[name].shape
            error = np.abs(y - expected[name]).max() / np.abs(expected[name]).max()
            worst[name] = max(worst.get(name, 0), error)
    return worst


CONFIGS = {
    "int8": lambda: Q.Int8QuantizationConfig(),
    "int8-weights": lambda: Q.Int8QuantizationConfig(activation_quantizer=None),
    "int8-narrow": lambda: Q.Int8QuantizationConfig(
        activation_quantizer=Q.AbsMaxQuantizer(value_range=(-3, 7))
    ),
    "int4": lambda: Q.Int4QuantizationConfig(),
    "int4-16": lambda: Q.Int4QuantizationConfig(block_size=16),
    # No size of onnxruntime's operators; the second one leaves half a byte in each group.
    "int4-10": lambda: Q.Int4QuantizationConfig(block_size=10),
    "int4-7": lambda: Q.Int4QuantizationConfig(block_size=7),
    "int4-columns": lambda: Q.Int4QuantizationConfig(block_size=-1),
    "int4-inputs": lambda: Q.Int4QuantizationConfig(
        activation_quantizer=Q.AbsMaxQuantizer(), block_size=None
    ),
    "float8": lambda: Q.Float8QuantizationConfig(),
}


def float8_scales(model):
    """Gives float8 layers scales other than 1."""
    for variable in model.weights:
        if variable.name in ("inputs_scale", "kernel_scale") and not variable.shape:
            variable.assign(0.013)
    return model


@pytest.mark.parametrize("name", ["int8", "int4-16"])
def test_every_layer(name, tmp_path):
    model = every_layer()
    model.quantize(config=CONFIGS[name]())
    assert max(errors(model, tmp_path).values()) < LIMIT


def mixed(first):
    """`every_layer` with another mode for each layer, beginning with one of CONFIGS."""
    model, names = every_layer(), list(CONFIGS)
    quantised = [layer for layer in model.layers if isinstance(layer, QUANTISED)]
    for i, layer in enumerate(quantised):
        table = isinstance(layer, layers.Embedding)
        allowed = [n for n in names if not (table and n == "float8")]
        layer.quantize(config=CONFIGS[allowed[(first + i) % len(allowed)]]())
    return float8_scales(model)


@pytest.mark.parametrize("first", [0, pytest.param(3, marks=pytest.mark.backend_free)])
def test_every_mode(first, tmp_path):
    model = mixed(first)
    for target in TARGETS:
        assert max(errors(model, tmp_path, target).values()) < LIMIT


@pytest.mark.backend_free
def test_a_loaded_model(tmp_path):
    model = mixed(1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert max(errors(loaded, tmp_path).values()) < LIMIT


def calibrated(mode, bits, group, shuffled):
    """`every_layer` in the mode gptq or awq, with drawn integers instead of calibrated ones."""
    model, random = every_layer(), np.random.default_rng(7)
    kind = Q.GPTQConfig if mode == "gptq" else Q.AWQConfig
    config = kind(dataset=None, tokenizer=None, weight_bits=bits, group_size=group)
    for layer in model.layers:
        if type(layer) not in (layers.Dense, layers.EinsumDense):
            continue
        layer.quantize(mode, config=config)
        (n, groups), k = layer.kernel_scale.shape, layer.g_idx.shape[0]
        q = random.integers(0, 2**bits, (n, k)).astype("uint8")
        packed = Q.pack_int4(keras.ops.convert_to_tensor(q), axis=0, dtype="uint8")[0]
        layer.quantized_kernel.assign(packed if bits == 4 else q)
        layer.kernel_scale.assign(random.uniform(0.01, 0.05, (n, groups)))
        layer.kernel_zero.assign(random.integers(0, 2**bits, (n, groups)).astype("uint8"))
        index = np.arange(k) // (k if groups == 1 else group)
        layer.g_idx.assign(random.permutation(index) if shuffled else index)
        if mode == "awq":
            layer.awq_scales.assign(random.uniform(0.5, 2, k))
        setattr(layer, f"is_{mode}_calibrated", True)
    return model


@pytest.mark.parametrize(
    ("mode", "bits", "group", "shuffled"),
    [
        ("gptq", 4, 16, True),
        *(
            pytest.param(*row, marks=pytest.mark.backend_free)
            for row in [("awq", 4, 16, False), ("gptq", 8, 16, True)]
        ),
    ],
)
def test_calibrated_modes(mode, bits, group, shuffled, tmp_path):
    target = "portable" if mode == "awq" else "ort"
    model = calibrated(mode, bits, group, shuffled)
    assert max(errors(model, tmp_path, target).values()) < LIMIT


@pytest.mark.backend_free
def test_unusual_calibrations(tmp_path):
    """Keras computes with zero points of 8 bits, and before a calibration with floats."""
    model = calibrated("gptq", 4, 16, False)
    zeros = model.get_layer("dense").kernel_zero
    zeros.assign(np.full(zeros.shape, 253, "uint8"))
    for name in ("heads", "one"):
        model.get_layer(name).is_gptq_calibrated = False
    assert max(errors(model, tmp_path).values()) < LIMIT


def with_lora(quantised):
    # Keras itself fails with LoRA if a quantised kernel does not make the last axis.
    model, random = every_layer(swapped=not quantised), np.random.default_rng(5)
    adapted = [layer for layer in model.layers if isinstance(layer, QUANTISED)]
    for i, layer in enumerate(adapted):
        if quantised:
            layer.quantize(config=CONFIGS[("int8", "int4-16", "int4-columns")[i % 3]]())
        layer.enable_lora(3, lora_alpha=5)
        for variable in layer.weights:
            if variable.name.startswith("lora_"):
                variable.assign(random.normal(size=variable.shape) * 0.2)
    return model


@pytest.mark.parametrize("quantised", [False, True])
def test_lora(quantised, tmp_path):
    assert max(errors(with_lora(quantised), tmp_path).values()) < LIMIT


@pytest.mark.backend_free
def test_lora_is_merged():
    graph = build_graph(with_lora(False)).graph
    assert not [name for name in graph.initializers if "lora" in name]
    assert graph.initializers["dense/kernel"].shape == (48, 37)


class Cell(layers.Layer):
    """A cell of a recurrent layer with a Dense inside."""

    state_size = 16

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(16, activation="tanh")

    def build(self, shape):
        self.dense.build((None, 32))

    def call(self, x, states):
        y = self.dense(keras.ops.concatenate([x, states[0]], axis=-1))
        return y, [y]


@pytest.mark.backend_free
@pytest.mark.parametrize(
    ("name", "target"), [("int8", "ort"), ("int4-16", "portable"), ("int4-inputs", "ort")]
)
def test_in_the_body_of_a_loop(name, target, tmp_path):
    """The float weight is computed outside, once."""
    x = keras.Input((None, 16), name="x")
    layer = layers.RNN(Cell(), return_sequences=True)
    model = randomise(keras.Model(x, {"y": layer(x)}, name="recurrent"), seed=2)
    layer.cell.dense.quantize(config=CONFIGS[name]())
    random = np.random.default_rng(3)
    inputs = lambda b, t: {"x": random.normal(size=(b, t, 16)).astype("float32")}  # noqa: E731
    # One value that is rounded to another integer moves the rest by a step, 1/127 of the largest.
    limit = LIMIT if name == "int4-16" else 0.02
    assert errors(model, tmp_path, target, inputs)["y"] < limit
    graph = ir.load(tmp_path / f"{target}.onnx").graph
    bodies = {node.op_type for node in ir.traversal.RecursiveGraphIterator(graph)} - {
        node.op_type for node in graph
    }
    assert not bodies & {"BitShift", "BitwiseAnd"}


class Own(layers.Dense):
    """A layer with its own quantised computation."""

    def _int8_call(self, inputs, training=None):
        return 2 * super()._int8_call(inputs)


@pytest.mark.backend_free
def test_what_is_unknown_is_refused():
    x = keras.Input((None, 8), name="x")
    model = keras.Model(x, Own(5, name="mine")(x))
    model.get_layer("mine").quantize("int8", type_check=False)
    with pytest.raises(ExportError, match="mine: Own is quantised in the mode int8, .*filters"):
        build_graph(model)

    class Quantizer(Q.AbsMaxQuantizer):
        pass

    model = keras.Model(x, layers.Dense(5, name="dense")(x))
    model.quantize(config=Q.Int8QuantizationConfig(activation_quantizer=Quantizer()))
    with pytest.raises(ExportError, match="dense: inputs are quantised by Quantizer; only AbsMax"):
        build_graph(model)


def tied_decoder():
    ids = keras.Input((None,), dtype="int32", name="ids")
    table = layers.ReversibleEmbedding(1009, 192, name="table")
    x = table(ids)
    for _ in range(2):
        x = x + layers.Dense(192)(layers.Dense(768, activation="relu")(x))
    return randomise(keras.Model(ids, table(x, reverse=True), name="tied"), seed=4)


@pytest.mark.backend_free
def test_the_size_of_a_file(tmp_path):
    """4 bits and a float scale for every 128 or 256 weights are a seventh of 32 bits."""
    sizes = {}
    for mode in ("float32", "int8", "int4"):
        model = tied_decoder()
        if mode != "float32":
            model.quantize(mode)
        report = export(model, tmp_path / f"{mode}.onnx")
        assert report.ok
        sizes[mode] = (tmp_path / f"{mode}.onnx").stat().st_size
    assert sizes["int8"] < 0.27 * sizes["float32"]
    assert sizes["int4"] < 0.145 * sizes["float32"]


@pytest.mark.backend_free
def test_a_precision_keeps_the_integers(tmp_path):
    """It chooses only how exactly products with them are computed."""
    model = tied_decoder()
    model.quantize(config=Q.Int4QuantizationConfig(activation_quantizer=None))
    levels, files = {}, {}
    for precision in ("fp32", "int4"):
        report = export(model, tmp_path / f"{precision}.onnx", precision=precision)
        graph = ir.load(tmp_path / f"{precision}.onnx").graph
        nodes = [node for node in graph if node.op_type == "MatMulNBits"]
        levels[precision] = {node.attributes.get_int("accuracy_level", 0) for node in nodes}
        files[precision] = {n: v.const_value.numpy() for n, v in graph.initializers.items()}
        assert report.error < (1e-4 if precision == "fp32" else 0.05)
    assert levels == {"fp32": {0}, "int4": {4}}
    assert files["fp32"].keys() == files["int4"].keys()
    for name, values in files["fp32"].items():
        assert np.array_equal(values, files["int4"][name])


@pytest.mark.backend_free
def test_half_precision_leaves_scales_alone(tmp_path):
    """Weights below 1e-4 have scales that float16 holds with two digits or fewer."""
    x = keras.Input((None, 256), name="x")
    model = keras.Model(x, {"y": layers.Dense(300, name="small")(x)})
    kernel = model.get_layer("small").kernel
    kernel.assign(np.random.default_rng(6).normal(size=kernel.shape) * 1e-5)
    model.quantize(config=Q.Int4QuantizationConfig(block_size=16))
    export(model, tmp_path / "half.onnx", precision="float16", verify=False)
    given = np.random.default_rng(2).normal(size=(2, 5, 256)).astype("float32")
    expected = to_numpy(model({"x": given}))["y"]
    session = onnxruntime.InferenceSession(tmp_path / "half.onnx")
    assert np.abs(session.run(None, {"x": given})[0] - expected).max() < 1e-4 * expected.max()
