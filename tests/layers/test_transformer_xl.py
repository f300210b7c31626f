import functools

import keras
import numpy as np
import onnxruntime
import pytest
from keras import ops

from keras_seqattn.layers import DecoderBlock, TransformerXLAttention
from keras_seqattn.layers.recording import recording
from keras_seqattn.onnx import export
from tests.helpers import check_layer, compiled, compiled_on_jax, gradients, randomise, to_numpy
from tests.layers.definition import check_definition
from tests.mechanisms import ragged_mask

HEADS, DIM, WIDTH, MEMORY = 3, 5, 10, 6
# Float32 of products of three projections, with values of about ten.
TOLERANCE = 5e-5


def build(memory=MEMORY, **settings):
    layer = TransformerXLAttention(HEADS, DIM, memory, name="mixer", **settings)
    layer.build((None, None, WIDTH))
    return randomise(layer, seed=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def define(layer, x, mask, w, memory=None, memory_mask=None):
    """The formula, query by query, in float64."""
    context = x
    if memory is not None:
        context, mask = np.concatenate([memory, x], 1), np.concatenate([memory_mask, mask], 1)
    q, k, v = (
        np.einsum("btm,mhd->bthd", tokens, w[f"{name}/kernel"])
        for name, tokens in (("query", x), ("key", context), ("value", context))
    )
    keys = context.shape[1]
    distances = np.minimum(np.arange(keys), layer.clamp_distance or keys)
    angles = distances[:, None] * 10000.0 ** (-np.arange(0, WIDTH, 2) / WIDTH)
    sinusoids = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    r = np.einsum("sm,mhd->shd", sinusoids, w["distance/kernel"])
    reach = layer.memory_length if layer.same_length else keys
    out = np.zeros_like(q)
    for row, i in np.ndindex(*x.shape[:2]):
        place = keys - x.shape[1] + i
        seen = np.flatnonzero(mask[row, : place + 1])
        seen = seen[place - seen < reach]
        if len(seen):
            by_content = (q[row, i] + w["content_bias"]) * k[row, seen]
            by_distance = (q[row, i] + w["distance_bias"]) * r[place - seen]
            weights = np.exp((by_content + by_distance).sum(-1) / DIM**0.5)
            out[row, i] = np.einsum("jh,jhd->hd", weights / weights.sum(0), v[row, seen])
    return np.einsum("bthd,hdm->btm", out, w["output_dense/kernel"])


def assert_close(actual, expected, mask):
    real = mask.astype(bool)
    bound = TOLERANCE * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(to_numpy(actual)[real], expected[real], rtol=0, atol=bound)


VARIANTS = {"plain": {}, "same length": {"same_length": True}, "clamped": {"clamp_distance": 4}}


@pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS)
@pytest.mark.parametrize("length", [1, 11])
def test_definition(settings, length):
    layer, x, mask = build(**settings), normal(4, length, WIDTH), ragged_mask(length)
    check_definition(layer, functools.partial(define, layer), x, TOLERANCE)
    # The last row has no memory either.
    memory = normal(4, MEMORY, WIDTH, seed=2), ragged_mask(MEMORY)[[2, 1, 0, 3]]

    def with_memory(x, mask, weights):
        return define(layer, x, mask, weights, *memory)

    check_definition(layer, with_memory, x, TOLERANCE, cache=memory)
    _, present = compiled_on_jax(layer)(x, attention_mask=mask, cache=memory)
    for old, added, new in zip(memory, (x, mask), present, strict=True):
        kept = np.concatenate([old, added], axis=1)[:, -MEMORY:]
        np.testing.assert_array_equal(to_numpy(new), kept)


def test_another_distance_does_not_pass():
    definition = functools.partial(define, build())
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_definition(build(clamp_distance=9), definition, normal(4, 11, WIDTH), TOLERANCE)


@pytest.mark.parametrize("settings", [{"memory": 13}, {"same_length": True}])
def test_segments_equal_one_long_pass(settings):
    """Where the memory holds all that was before, or queries see as far from any segment."""
    layer, x, mask = build(**settings), normal(2, 13, WIDTH), ragged_mask(13)[:2]
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
    inputs = {"x": normal(4, 7, WIDTH), "attention_mask": ragged_mask(7)}
    # Products of four projections: bfloat16's 8 bits four times.
    check_layer(layer, inputs, tmp_path, half_tolerance=0.2)


def test_no_gradient_flows_through_the_memory():
    layer, x, mask = build(), normal(4, 7, WIDTH), ragged_mask(MEMORY)

    def loss(x, memory):
        y, _ = layer(x, cache=(memory, mask))
        # The second term gives the memory a gradient at all, which must stay what it is.
        return ops.add(ops.sum(ops.square(y)), ops.multiply(3.0, ops.sum(memory)))

    through_x, through_memory = gradients(loss, x, normal(4, MEMORY, WIDTH, seed=2))
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
    rows = 4 if length < 999 else 1
    feeds = {"x": normal(rows, length, WIDTH), "attention_mask": ragged_mask(length)[:rows]}
    return feeds | {"memory": normal(rows, MEMORY, WIDTH), "mask": ragged_mask(MEMORY)[:rows]}


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
            actual = dict(zip(names, session.run(None, feeds), strict=True))
            assert_close(actual["y"], expected[length]["y"], feeds["attention_mask"])
            for name in ("new_memory", "new_mask"):
                np.testing.assert_array_equal(actual[name], expected[length][name])


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="memory_length must be a whole number from 1"):
        TransformerXLAttention(HEADS, DIM, 0)
    with pytest.raises(ValueError, match="must be even. Received: 7"):
        TransformerXLAttention(HEADS, DIM, MEMORY).build((None, None, 7))
