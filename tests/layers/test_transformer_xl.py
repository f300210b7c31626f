import keras
import numpy as np
import onnxruntime
import pytest
from keras import ops

from keras_seqattn.layers import DecoderBlock, TransformerXLAttention
from keras_seqattn.layers.recording import recording
from keras_seqattn.onnx import export
from tests.helpers import check_layer, compiled, compiled_on_jax, gradients, randomise, to_numpy

HEADS, DIM, WIDTH, MEMORY = 3, 5, 10, 6
# Float32 of products of three projections, with values of about ten.
TOLERANCE = 5e-5


def build(memory=MEMORY, **settings):
    layer = TransformerXLAttention(HEADS, DIM, memory, name="mixer", **settings)
    layer.build((None, None, WIDTH))
    return randomise(layer, seed=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def ragged(length):
    """int32 (3, t): a full row, one padded on the left, one on the right."""
    mask = np.ones((3, length), "int32")
    mask[1, : length // 3] = 0
    mask[2, length - length // 3 :] = 0
    return mask


def define(layer, x, mask, memory=None, memory_mask=None):
    """The formula, pair by pair, in float64."""
    w = {v.path.removeprefix("mixer/"): to_numpy(v.value).astype("float64") for v in layer.weights}
    if memory is not None:
        context, mask = np.concatenate([memory, x], 1), np.concatenate([memory_mask, mask], 1)
    else:
        context = x
    q = np.einsum("btm,mhd->bthd", x, w["query/kernel"])
    k = np.einsum("btm,mhd->bthd", context, w["key/kernel"])
    v = np.einsum("btm,mhd->bthd", context, w["value/kernel"])
    (batch, t), s = x.shape[:2], context.shape[1]
    frequencies = 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
    out = np.zeros((batch, t, HEADS, DIM))
    for i in range(t):
        places = range(max(0, i + s - t - layer.memory_length + 1) if layer.same_length else 0, s)
        places = [j for j in places if j <= i + s - t]
        for row in range(batch):
            real = [j for j in places if mask[row, j]]
            scores = []
            for j in real:
                distance = min(i + s - t - j, layer.clamp_distance or s)
                angles = distance * frequencies
                r = np.concatenate([np.sin(angles), np.cos(angles)]) @ np.moveaxis(
                    w["distance/kernel"], 1, 0
                )
                by_content = (q[row, i] + w["content_bias"]) * k[row, j]
                scores.append((by_content + (q[row, i] + w["distance_bias"]) * r).sum(-1))
            if real:
                weights = np.exp(np.array(scores) / DIM**0.5)
                out[row, i] = np.einsum("jh,jhd->hd", weights / weights.sum(0), v[row, real])
    return np.einsum("bthd,hdm->btm", out, w["output_dense/kernel"])


def assert_close(actual, expected, mask):
    real = mask.astype(bool)
    bound = TOLERANCE * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(to_numpy(actual)[real], expected[real], rtol=0, atol=bound)


VARIANTS = {"plain": {}, "same length": {"same_length": True}, "clamped": {"clamp_distance": 4}}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("length", [1, 11])
def test_definition(settings, length):
    layer, x, mask = build(**settings), normal(3, length, WIDTH), ragged(length)
    run = compiled_on_jax(layer)
    assert_close(run(x, attention_mask=mask), define(layer, x, mask), mask)
    memory, memory_mask = normal(3, MEMORY, WIDTH, seed=2), ragged(MEMORY)[::-1]
    y, present = run(x, attention_mask=mask, cache=(memory, memory_mask))
    assert_close(y, define(layer, x, mask, memory, memory_mask), mask)
    kept = [np.concatenate(pair, 1)[:, -MEMORY:] for pair in ((memory, x), (memory_mask, mask))]
    for new, expected in zip(present, kept, strict=True):
        np.testing.assert_array_equal(to_numpy(new), expected)


def test_another_distance_does_not_pass():
    layer, x, mask = build(), normal(3, 11, WIDTH), ragged(11)
    expected = define(layer, x, mask)
    layer.clamp_distance = 9
    with pytest.raises(AssertionError):
        assert_close(layer(x, attention_mask=mask), expected, mask)


@pytest.mark.parametrize("settings", [{"memory": 13}, {"same_length": True}])
def test_segments_equal_one_long_pass(settings):
    """Where the memory holds all that was before, or queries see as far from any segment."""
    layer, x, mask = build(**settings), normal(3, 13, WIDTH), ragged(13)
    x, mask = x[:2], mask[:2]
    expected = to_numpy(compiled_on_jax(layer)(x, attention_mask=mask))
    step = compiled(lambda inputs: layer(**inputs))
    for sizes in ((5, 1, 7), (1,) * 13):
        shapes = layer.state_shapes().values()
        cache = tuple(np.zeros((2, *shape), dtype or "float32") for shape, dtype in shapes)
        outs, start = [], 0
        for size in sizes:
            part = slice(start, start + size)
            call = {"x": x[:, part], "attention_mask": mask[:, part], "cache": cache}
            y, cache = step(keras.tree.map_structure(ops.convert_to_tensor, call))
            outs.append(to_numpy(y))
            start += size
        assert_close(np.concatenate(outs, 1), expected, mask)


def test_the_future_does_not_reach_the_past():
    layer, x = build(), normal(2, 11, WIDTH)
    run = compiled(lambda x: layer(x))
    before = to_numpy(run(ops.convert_to_tensor(x)))
    x[:, 7:] += 1.0
    after = to_numpy(run(ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert np.abs(before[:, 7:] - after[:, 7:]).max() > 1e-2


def test_contract(tmp_path):
    layer = TransformerXLAttention(HEADS, DIM, MEMORY, name="mixer")
    inputs = {"x": normal(3, 7, WIDTH), "attention_mask": ragged(7)}
    # Products of four projections: bfloat16's 8 bits four times.
    check_layer(layer, inputs, tmp_path, half_tolerance=0.2)


def test_no_gradient_flows_through_the_memory():
    layer, x, mask = build(), normal(3, 7, WIDTH), ragged(MEMORY)

    def loss(x, memory):
        y, _ = layer(x, cache=(memory, mask))
        # The second term gives the memory a gradient at all, which must stay what it is.
        return ops.add(ops.sum(ops.square(y)), ops.multiply(3.0, ops.sum(memory)))

    memory = normal(3, MEMORY, WIDTH, seed=2)
    through_x, through_memory = gradients(compiled_on_jax(loss), x, memory)
    assert np.abs(through_x).max() > 0
    np.testing.assert_array_equal(through_memory, 3.0)


def test_in_a_block():
    block = DecoderBlock(HEADS, DIM, 17, mixer=TransformerXLAttention(HEADS, DIM, MEMORY))
    with recording() as records:
        block(normal(2, 7, WIDTH))
    assert {"query", "content_bias"} < {
        v.path.split("mixer/")[-1].split("/")[0] for v in block.weights
    }
    ((layer, scores),) = records
    assert layer is block.attention and layer.name == "mixer"
    assert scores.shape == (2, HEADS, 7, 7)
    np.testing.assert_allclose(to_numpy(scores).sum(-1), 1.0, atol=1e-5)


def test_dropout_is_for_training():
    layer, x = build(dropout=0.5, position_dropout=0.3), normal(2, 7, WIDTH)
    np.testing.assert_array_equal(to_numpy(layer(x)), to_numpy(layer(x)))
    trained = to_numpy(layer(x, training=True))
    assert np.isfinite(trained).all() and np.abs(trained - to_numpy(layer(x))).max() > 1e-2


def export_inputs(length):
    # One row at the longest: the scores are as large as its square.
    rows = 3 if length < 999 else 1
    feeds = {"x": normal(rows, length, WIDTH), "attention_mask": ragged(length)[:rows]}
    return feeds | {"memory": normal(rows, MEMORY, WIDTH), "mask": ragged(MEMORY)[:rows]}


@pytest.mark.parametrize(
    ("settings", "lengths"), [({}, (1, 17, 333, 4099)), ({"same_length": True}, (1, 17, 333))]
)
def test_export(settings, lengths, tmp_path):
    layer = build(**settings)
    x = keras.Input((None, WIDTH), name="x")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    shapes = layer.state_shapes()
    cache = {n: keras.Input(s, dtype=d or "float32", name=n) for n, (s, d) in shapes.items()}
    y, present = layer(x, attention_mask=mask, cache=tuple(cache.values()))
    outputs = {"y": y, "new_memory": present[0], "new_mask": present[1]}
    model = keras.Model({"x": x, "attention_mask": mask, **cache}, outputs, name="own")
    run = compiled_on_jax(lambda feeds: model(feeds))
    expected = {length: to_numpy(run(export_inputs(length))) for length in lengths}
    for target in ("portable", "ort"):
        path = tmp_path / f"{target}.onnx"
        export(model, path, target=target, verify=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for length in lengths:
            feeds = export_inputs(length)
            wide = {n: a.astype("int64") if a.dtype == "int32" else a for n, a in feeds.items()}
            actual = dict(zip(names, session.run(None, wide), strict=True))
            assert_close(actual["y"], expected[length]["y"], feeds["attention_mask"])
            for name in ("new_memory", "new_mask"):
                np.testing.assert_array_equal(actual[name], expected[length][name])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="memory_length must be 1"):
        TransformerXLAttention(HEADS, DIM, 0)
    with pytest.raises(ValueError, match="must be even. Received: 7"):
        TransformerXLAttention(HEADS, DIM, MEMORY).build((None, None, 7))
