"""Layers that stand in for self-attention, with states of a fixed size: their contract."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import ops

from keras_seqattn import layers
from keras_seqattn.onnx import export
from tests.helpers import check_layer, compiled_on_jax, randomise, to_numpy
from tests.layers.definition import check_definition
from tests.mechanisms import EXPORT_LENGTHS, ragged_mask
from tests.ops.recurrence import recurrence

WIDTH = 11
MIXERS = {
    "short_convolution": lambda **k: layers.ShortConvolution(3, **k),
    "gated_linear": lambda **k: layers.GatedLinearAttention(
        3, 5, value_dim=7, gate_rank=2, gate_temperature=2.0, **k
    ),
    "gated_delta": lambda **k: layers.GatedDelta(6, 5, num_key_heads=3, value_dim=7, **k),
    "state_space": lambda **k: layers.StateSpace(6, 5, state_dim=7, num_groups=2, **k),
}
CHUNKED = [name for name in MIXERS if name != "short_convolution"]


def build(name, **settings):
    if name in CHUNKED:
        settings.setdefault("chunk_size", 4)
    layer = MIXERS[name](name="mixer", **settings)
    layer.build((None, None, WIDTH))
    return randomise(layer, seed=7)


def inputs(length):
    x = np.random.default_rng(length).standard_normal((4, length, WIDTH)).astype("float32")
    return {"x": x, "attention_mask": ragged_mask(length)}


def zeros(layer, batch):
    shapes = layer.state_shapes().values()
    return tuple(np.zeros((batch, *shape), dtype or "float32") for shape, dtype in shapes)


def runner(layer):
    """The layer as a function of its call arguments."""
    function = compiled_on_jax(lambda arrays: layer(**arrays))
    return lambda **arrays: function(keras.tree.map_structure(ops.convert_to_tensor, arrays))


# On JAX each new operation of an eager call is compiled, over ten seconds for a layer.
SLOW = pytest.mark.slow if keras.backend.backend() == "jax" else ()


@pytest.mark.parametrize(
    "name", ["short_convolution", *(pytest.param(name, marks=SLOW) for name in CHUNKED)]
)
def test_contract(name, tmp_path):
    settings = {"chunk_size": 2} if name in CHUNKED else {}
    # Products of three projections: bfloat16's 8 bits three times.
    check_layer(MIXERS[name](name="mixer", **settings), inputs(3), tmp_path, half_tolerance=0.15)


# So large that the scale of the queries, which a norm would undo, counts.
EPSILON = 0.1


def gated_linear(x, mask, w):
    """The formulas of `GatedLinearAttention` with the settings of `MIXERS` and `EPSILON`."""

    def heads(x, size):
        return x.reshape(*x.shape[:2], 3, size)

    query, key, value, gate = (x @ w[f"{n}/kernel"] for n in ("query", "key", "value", "gate"))
    decay = x @ w["decay_down/kernel"] @ w["decay_up/kernel"] + w["decay_up/bias"]
    log_decay = -np.log1p(np.exp(-decay)) / 2.0
    out, _ = recurrence(
        heads(query, 5) / 5**0.5, heads(key, 5), heads(value, 7), heads(log_decay, 5), mask=mask
    )
    out /= np.sqrt((out**2).mean(-1, keepdims=True) + EPSILON)
    out = (out * w["norm/scale"]).reshape(gate.shape)
    return out * gate / (1.0 + np.exp(-gate)) @ w["output_dense/kernel"]


# Within a chunk of four, one chunk, and several of which the last is not full.
@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_gated_linear_by_definition(length):
    layer = build("gated_linear", layer_norm_epsilon=EPSILON)
    # float32 through four projections and their sums over time.
    check_definition(layer, gated_linear, inputs(length)["x"], tolerance=1e-5)


@pytest.mark.parametrize("name", MIXERS)
def test_chunks_and_steps_are_the_parallel_form(name):
    layer, length = build(name), 9
    run = runner(layer)
    # A row padded on the right does not go on, so it is not decoded.
    arrays = {key: value[[0, 1, 3]] for key, value in inputs(length).items()}
    expected, real = to_numpy(run(**arrays)), arrays["attention_mask"] != 0
    bound = 1e-5 * max(1.0, np.abs(expected).max())
    shapes = [shape for shape, _ in layer.state_shapes().values()]
    for sizes in ((7, 1, 1), (1,) * length):
        cache, outs, start = zeros(layer, 3), [], 0
        for size in sizes:
            part = {key: value[:, start : start + size] for key, value in arrays.items()}
            out, cache = run(**part, cache=cache)
            assert [tuple(x.shape[1:]) for x in cache] == shapes
            outs.append(to_numpy(out))
            start += size
        actual = np.concatenate(outs, axis=1)
        np.testing.assert_allclose(actual[real], expected[real], rtol=0, atol=bound)
    masked = {"x": arrays["x"][:, :1], "attention_mask": np.zeros((3, 1), "int32")}
    _, after = run(**masked, cache=cache)
    for key, old, new in zip(layer.state_shapes(), cache, after, strict=True):
        # A convolution sees a zero instead.
        assert np.array_equal(to_numpy(new), to_numpy(old)) == (key == "recurrent")


@pytest.mark.parametrize("name", MIXERS)
def test_padding_changes_nothing_and_the_future_does_not_leak(name):
    run, arrays = runner(build(name)), inputs(9)
    real = arrays["attention_mask"] != 0
    assert list(real.sum(1)) == [9, 6, 6, 0]
    arrays["x"][1, 3:] = arrays["x"][2, :6] = arrays["x"][0, :6]
    before = to_numpy(run(**arrays))
    bound = 1e-5 * max(1.0, np.abs(before).max())
    for padded in (before[1, 3:], before[2, :6]):
        np.testing.assert_allclose(padded, before[0, :6], rtol=0, atol=bound)
    other = np.where(real[..., None], arrays["x"], 9.0).astype("float32")
    assert np.array_equal(to_numpy(run(**arrays | {"x": other}))[real], before[real])
    future = arrays["x"].copy()
    future[:, 6:] += 1.0
    after = to_numpy(run(**arrays | {"x": future}))
    assert np.array_equal(after[:, :6], before[:, :6])
    assert not np.array_equal(after[0, 6:], before[0, 6:])


def test_in_a_block_with_the_implicit_mask():
    block = layers.DecoderBlock(2, 5, 13, mixer=MIXERS["short_convolution"](), name="block")
    block.build((None, None, WIDTH))
    randomise(block, seed=2)
    ids = np.array([[3, 1, 4, 1, 5], [2, 7, 0, 0, 8]])
    embedded = layers.TokenEmbedding(9, WIDTH, mask_zero=True, name="tokens")(ids)
    y = to_numpy(block(embedded))
    explicit = to_numpy(block(to_numpy(embedded), attention_mask=(ids != 0).astype("int32")))
    np.testing.assert_array_equal(y, explicit)
    assert not np.allclose(y[1, 4], to_numpy(block(to_numpy(embedded)))[1, 4])
    assert "block/mixer/conv/kernel" in [v.path for v in block.weights]


@pytest.mark.parametrize("mixer", [layers.TransformerXLAttention, layers.LatentAttention])
def test_the_implicit_mask_beside_other_arguments(mixer):
    sizes = (2, 5, 7) if mixer is layers.TransformerXLAttention else (2, 5, 4, 6)
    ids = np.array([[0, 0, 1, 4, 5], [2, 7, 1, 3, 8]])
    embedded = keras.layers.Embedding(9, 10, mask_zero=True)(ids)
    layer = mixer(*sizes)
    layer.build((None, None, 10))
    randomise(layer, seed=2)
    positions = np.arange(5)[None]
    y = to_numpy(layer(embedded, position_ids=positions))
    mask = (ids != 0).astype("int32")
    explicit = to_numpy(layer(to_numpy(embedded), attention_mask=mask, position_ids=positions))
    np.testing.assert_array_equal(y, explicit)
    assert not np.allclose(y[0], to_numpy(layer(to_numpy(embedded), position_ids=positions))[0])


@pytest.mark.parametrize("name", MIXERS)
def test_export(name, tmp_path):
    x = keras.Input((None, WIDTH), name="x")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    layer = build(name, chunk_size=64) if name in CHUNKED else build(name)
    model = keras.Model({"x": x, "attention_mask": mask}, layer(x, attention_mask=mask))
    feeds = {key: value[1:3] for key, value in inputs(max(EXPORT_LENGTHS)).items()}
    feeds["attention_mask"][0, 5:] = 1
    real = feeds["attention_mask"] != 0
    # All are causal, so that this is what every beginning gives too.
    expected = to_numpy(runner(layer)(**feeds))
    # float32 in another order of summation.
    bound = 2e-5 * max(1.0, np.abs(expected).max())
    for target in ("portable", "ort"):
        path = tmp_path / f"{target}.onnx"
        export(model, path, target=target, verify=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for length in EXPORT_LENGTHS:
            part = {key: value[:, :length] for key, value in feeds.items()}
            difference = session.run(None, part)[0] - expected[:, :length]
            assert np.abs(difference[real[:, :length]]).max() <= bound, length


def test_numbers_of_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="num_heads=6, num_key_heads=4"):
        layers.GatedDelta(6, 5, num_key_heads=4)
    with pytest.raises(ValueError, match="num_heads=6, num_groups=4"):
        layers.StateSpace(6, 5, 7, num_groups=4)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="of TensorFlow's functions")
def test_gradients_where_tensorflow_does_not_know_the_length():
    import tensorflow as tf

    layer = build("gated_linear")

    @tf.function(input_signature=[tf.TensorSpec((1, None, WIDTH))])
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x)))
        return tape.gradient(loss, x)

    for length in (1, 11):
        x = np.random.default_rng(length).standard_normal((1, length, WIDTH)).astype("float32")
        assert np.abs(gradient(x).numpy()).max(axis=(0, 2)).min() > 0
