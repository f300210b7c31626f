"""Quantised graphs in onnxruntime against NumPy on the same rounded weights, and the rounding."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnxruntime.capi._pybind_state import quantize_matmul_4bits

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.quantize import quantize, rounding

pytestmark = pytest.mark.backend_free

V, M, F, C = 67, 96, 37, 5  # vocabulary, model width, feed-forward width, classes


def weights(seed=11):
    random = np.random.default_rng(seed)
    matrix = lambda *shape: (random.normal(size=shape) * 1.5 / shape[0] ** 0.5).astype("float32")  # noqa: E731
    return {
        "table": matrix(V, M), "up": matrix(M, F), "up_bias": matrix(F), "down": matrix(F, M),
        "classes": matrix(M, C),
    }  # fmt: skip


def value(name, array):
    tensor = ir.Tensor(array, name=name)
    return ir.Value(
        name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor
    )


def build(contrib=True, decoder=False, arrays=None):
    """ids -> table -> up + bias -> down -> (scores by the same table, labels)."""
    w = {name: value(name, array) for name, array in (arrays or weights()).items()}
    ids = ir.Value(
        name="past_key_values.0.key" if decoder else "ids",
        shape=ir.Shape(["b", "t"]),
        type=ir.TensorType(ir.DataType.INT64),
    )
    nodes = []

    def op(op_type, inputs, attributes=None, name=None):
        output = ir.Value(name=name or f"v{len(nodes)}", type=ir.TensorType(ir.DataType.FLOAT))
        domain = "com.microsoft" if op_type == "FusedMatMul" else ""
        node = ir.node(op_type, inputs, attributes or {}, domain=domain, outputs=[output])
        node.name = output.name
        nodes.append(node)
        return output

    x = op("Gather", [w["table"], ids])
    hidden = op("Add", [op("MatMul", [x, w["up"]]), w["up_bias"]], name="hidden")
    y = op("MatMul", [hidden, w["down"]], name="y")
    if contrib:
        scores = op("FusedMatMul", [y, w["table"]], {"transB": 1}, name="scores")
    else:
        scores = op("MatMul", [y, op("Transpose", [w["table"]], {"perm": [1, 0]})], name="scores")
    labels = op("MatMul", [y, w["classes"]], name="labels")
    graph = ir.Graph(
        [ids], [hidden, scores, labels], nodes=nodes, initializers=list(w.values()),
        opset_imports={"": 23, **({"com.microsoft": 1} if contrib else {})},
    )  # fmt: skip
    return ir.Model(graph, ir_version=10)


def run(model, ids, names=("hidden", "scores", "labels")):
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    return session.run(names, {session.get_inputs()[0].name: ids})


def ops_of(model):
    return [node.op_type for node in model.graph]


IDS = np.random.default_rng(3).integers(0, V, (2, 7))
FORMS = [(p, c, d) for p in ("int8", "int4") for c in (True, False) for d in (False, True)]


@pytest.mark.parametrize(("precision", "contrib", "decoder"), FORMS)
def test_every_form_stays_close_to_the_float_graph(precision, contrib, decoder):
    expected = run(build(contrib, decoder), IDS)
    model = quantize(build(contrib, decoder), precision)
    # Three products in a row: 8 bits lose about 0.5 % each, 4 bits about 9 %.
    limit = 0.03 if precision == "int8" else 0.3
    for e, a in zip(expected, run(model, IDS), strict=True):
        assert 0 < np.linalg.norm(a - e) / np.linalg.norm(e) < limit


def rounded_rows(rows, block, bits):
    q, scales, zeros = rounding.blocks(rows, block, bits)
    values = (q.astype("float32") - zeros[..., None]) * scales[..., None]
    return values.reshape(len(rows), -1)[:, : rows.shape[1]]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_block_products_are_exactly_those_of_the_rounded_weights(precision):
    bits = 4 if precision == "int4" else 8
    model = quantize(build(decoder=True), precision, accuracy_level=0)
    w = weights()
    # Blocks: 96 is divided by 32 but not by 64; no block divides 37, whose last one is padded.
    table = rounded_rows(w["table"], 32, bits)
    up = rounded_rows(w["up"].T, 32, bits).T
    down = rounded_rows(w["down"].T, 64, bits).T
    hidden = table[IDS] @ up + w["up_bias"]
    y = hidden @ down
    # accuracy_level 0 multiplies in float32, so only the order of the sums differs.
    for e, a in zip([hidden, y @ table.T, y @ w["classes"]], run(model, IDS), strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-4)


def test_bias_goes_into_the_product_and_small_heads_stay_float():
    assert ops_of(quantize(build(), "int8")) == ["Gather", *["DynamicQuantizeMatMul"] * 3, "MatMul"]
    assert ops_of(quantize(build(), "int4")) == [
        "Reshape", "GatherBlockQuantized", "MatMulNBits", "MatMulNBits", "MatMulNBits", "MatMul"
    ]  # fmt: skip


def test_decoders_get_one_scale_per_block_with_8_bits():
    model = quantize(build(decoder=True), "int8")
    products = [node for node in model.graph if node.op_type == "MatMulNBits"]
    assert [node.attributes["bits"].value for node in products] == [8, 8, 8]


def test_a_tied_table_is_stored_once_and_float_weights_are_gone():
    model = quantize(build(), "int4")
    big = [n for n, v in model.graph.initializers.items() if v.const_value.size > V * 8]
    assert sorted(n.split("/")[0] for n in big) == ["down", "table", "up"]


def test_a_shared_activation_is_quantised_once_in_the_standard_form():
    counts = ops_of(quantize(build(contrib=False), "int8"))
    assert counts.count("MatMulInteger") == 3
    shared = build(contrib=False)
    up = next(n for n in shared.graph if n.op_type == "MatMul")
    extra = ir.node("MatMul", list(up.inputs), name="again")
    extra.outputs[0].name = "again"
    shared.graph.insert_after(up, extra)
    shared.graph.outputs.append(extra.outputs[0])
    counts = ops_of(quantize(shared, "int8"))
    assert counts.count("MatMulInteger") == 4 and counts.count("DynamicQuantizeLinear") == 3


def test_each_weight_is_read_once_and_progress_is_told():
    reads = []

    def lazy(name, array):
        def load():
            reads.append(name)
            return ir.Tensor(array, name=name)

        return ir.LazyTensor(load, ir.DataType.FLOAT, ir.Shape(array.shape), name=name)

    model = build()
    for name, array in weights().items():
        model.graph.initializers[name].const_value = lazy(name, array)
    told = []
    quantize(model, "int4", progress=lambda done, total: told.append((done, total)))
    assert sorted(reads) == ["down", "table", "up"]
    assert told == [(i, 4) for i in (1, 2, 3, 4)]


def test_the_same_model_gives_the_same_bytes():
    first, second = (ir.to_proto(quantize(build(), "int4")).SerializeToString() for _ in range(2))
    assert first == second


@pytest.mark.parametrize("settings", [{"precision": "int2"}, {"block_size": 48}, {"block_size": 8}])
def test_unknown_settings_are_refused(settings):
    with pytest.raises(ExportError, match="int2|block_size"):
        quantize(build(), **{"precision": "int4", **settings})


@pytest.mark.parametrize(("k", "block"), [(64, 32), (96, 32), (128, 64), (80, 32)])
def test_layout_is_that_of_onnxruntimes_quantiser(k, block):
    n, count = 7, -(-k // block)
    random = np.random.default_rng(5)
    # Integers 0..15 less an offset, both ends in every block: any good rounding finds them exactly.
    integers = random.integers(0, 16, (n, count, block))
    offsets = random.integers(0, 16, (n, count, 1))
    integers[..., 0], integers[..., 1] = 0, 15
    rows = ((integers - offsets) * 0.25).reshape(n, -1)[:, :k].astype("float32")
    packed = np.zeros((n, count, block // 2), "uint8")
    scales = np.zeros(n * count, "float32")
    zeros = np.zeros((n, -(-count // 2)), "uint8")
    quantize_matmul_4bits(
        packed, np.ascontiguousarray(rows.T), scales, zeros.reshape(-1), block, n, k, False
    )
    q, ours, points = rounding.blocks(rows, block, bits=4)
    np.testing.assert_allclose(ours.reshape(-1), scales, rtol=1e-6)
    # What pads an odd number of zero points, or a last block, is never read.
    used = np.array([[0xFF] * (count // 2) + [0x0F] * (count % 2)], "uint8")
    assert np.array_equal(rounding.pack_nibbles(points), zeros & used)
    whole = k // block
    assert np.array_equal(rounding.pack_nibbles(q)[:, :whole], packed[:, :whole])


@pytest.mark.parametrize("bits", [4, 8])
def test_the_search_beats_the_plain_range_and_keeps_zeros(bits):
    rows = np.random.default_rng(2).standard_t(4, (31, 128)).astype("float32")
    rows[3], rows[:, 5], rows[4] = 0, 0, 1e-40
    found = rounded_rows(rows, 64, bits)
    blocks = rows.reshape(-1, 64)
    low, high = np.minimum(blocks.min(1), 0)[:, None], np.maximum(blocks.max(1), 0)[:, None]
    step = np.where(high > low, high - low, 1) / (2**bits - 1)
    zero = np.rint(-low / step)
    plain = (np.clip(np.rint(blocks / step), -zero, 2**bits - 1 - zero) * step).reshape(rows.shape)
    assert np.isfinite(found).all() and not found[3].any() and not found[:, 5].any()
    assert np.linalg.norm(found - rows) < np.linalg.norm(plain - rows) * (0.97 if bits == 4 else 1)


def test_columns_of_8_bits_are_within_half_a_step():
    weight = np.random.default_rng(8).normal(size=(53, 19)).astype("float32")
    weight[:, 4] = 0
    q, scales = rounding.int8_columns(weight)
    assert q.dtype == np.int8 and np.abs(q).max() == 127
    # Half a step, and the rounding of the quotient itself.
    assert (np.abs(q * scales - weight) <= scales * 0.5001).all()


def as_float16(arrays):
    return {name: array.astype("float16") for name, array in arrays.items()}


@pytest.mark.parametrize(("precision", "contrib", "decoder"), FORMS)
def test_float16_weights_are_rounded_too(precision, contrib, decoder):
    arrays = as_float16(weights())
    model = build(contrib, decoder, arrays)
    for node in model.graph:
        for output in node.outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT16)
    expected = run(model, IDS)
    quantize(model, precision)
    left = {n for n, v in model.graph.initializers.items() if v.dtype == ir.DataType.FLOAT16}
    # In the standard block form no block divides 37, and the table of "int8" encoders stays.
    assert not left & {"up", "down"} - ({"down"} if not contrib else set())
    assert any(v.dtype in (ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.UINT4)
               for v in model.graph.initializers.values())  # fmt: skip
    limit = 0.03 if precision == "int8" else 0.3
    for e, a in zip(expected, run(model, IDS), strict=True):
        assert a.dtype == np.float16
        e, a = e.astype("float32"), a.astype("float32")
        assert 0 < np.linalg.norm(a - e) / np.linalg.norm(e) < limit


@pytest.mark.parametrize("rows", [V, 1 << 14])
@pytest.mark.parametrize("contrib", [True, False])
def test_a_tied_head_keeps_its_own_layout_beside_a_rounded_table(contrib, rows):
    """The head has columns of 8-bit values, which are no blocks of rows for the table to read."""
    arrays = weights()
    random = np.random.default_rng(7)
    arrays["table"] = (random.normal(size=(rows, M)) * 0.15).astype("float32")
    expected = run(build(contrib, arrays=arrays), IDS)
    model = quantize(build(contrib, arrays=arrays), "int8", tables=True)
    for e, a in zip(expected, run(model, IDS), strict=True):
        assert 0 < np.linalg.norm(a - e) / np.linalg.norm(e) < 0.03
    # A table of a million values and more is rounded, whoever else reads it.
    assert ("Gather" in ops_of(model)) == (not contrib or rows == V)
    floats = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    assert any(v.const_value.size == rows * M for v in floats) == (rows == V)


def test_two_readers_of_one_table_share_its_rounded_rows():
    arrays = weights()
    arrays["table"] = np.random.default_rng(7).normal(size=(1 << 14, M)).astype("float32")
    model = build(contrib=False, arrays=arrays)
    lookup = next(n for n in model.graph if n.op_type == "Gather")
    again = ir.node("Gather", list(lookup.inputs), name="again")
    again.outputs[0].name, again.outputs[0].type = "again", lookup.outputs[0].type
    model.graph.insert_after(lookup, again)
    model.graph.outputs.append(again.outputs[0])
    quantize(model, "int8", tables=True)
    assert sum(n.endswith("int8_rows") for n in model.graph.initializers) == 1


@pytest.mark.parametrize("tables", [False, True])
def test_products_in_the_bodies_of_loops_are_rounded(tables):
    """Also where tables are rounded as well; DequantizeLinear alone cannot be in a body."""
    w = {name: value(name, array) for name, array in weights().items()}
    x = ir.Value(name="x", shape=ir.Shape([2, M]), type=ir.TensorType(ir.DataType.FLOAT))
    state = ir.Value(name="state", shape=ir.Shape([M]), type=ir.TensorType(ir.DataType.FLOAT))
    step = ir.Value(name="step", shape=ir.Shape([M]), type=ir.TensorType(ir.DataType.FLOAT))
    up, down, new = (
        ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT)) for n in ("u", "d", "new")
    )
    nodes = [
        ir.node("MatMul", [step, w["up"]], outputs=[up], name="u"),
        ir.node("MatMul", [up, w["down"]], outputs=[down], name="d"),
        ir.node("Add", [state, down], outputs=[new], name="new"),
    ]
    body = ir.Graph([state, step], [new], nodes=nodes, name="body")
    first = value("first", np.zeros(M, "float32"))
    end = ir.Value(name="end", shape=ir.Shape([M]), type=ir.TensorType(ir.DataType.FLOAT))
    scan = ir.node("Scan", [first, x], {"body": body, "num_scan_inputs": 1}, outputs=[end])
    scan.name = "scan"
    graph = ir.Graph(
        [x], [end], nodes=[scan], initializers=[first, w["up"], w["down"]], opset_imports={"": 23}
    )
    model = quantize(ir.Model(graph, ir_version=10), "int8", tables=tables)
    assert {"up/int8", "down/int8"} <= set(model.graph.initializers)
    array = np.random.default_rng(1).normal(size=(2, M)).astype("float32")
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    expected = (array @ weights()["up"] @ weights()["down"]).sum(0)
    error = session.run(None, {"x": array})[0] - expected
    assert 0 < np.linalg.norm(error) / np.linalg.norm(expected) < 0.03


def test_rows_of_a_batch_move_each_other_by_rounding_alone():
    """onnxruntime takes rows in pairs and an odd one by another kernel, which sums differently."""
    model = quantize(build(decoder=True), "int4")
    alone = run(model, IDS[:1, :1])
    for batch in (2, 3, 5):
        rows = run(model, np.repeat(IDS[:1, :1], batch, axis=0))
        for one, several in zip(alone, rows, strict=True):
            # Up to a step of the 8-bit activations of the next product, in single values.
            assert np.linalg.norm(several - one, axis=(1, 2)).max() < 0.01 * np.linalg.norm(one)
