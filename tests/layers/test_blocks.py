import keras
import numpy as np
import pytest

from keras_seqattn.layers import DecoderBlock, EncoderBlock, FeedForward, Residual, RotaryPositions
from keras_seqattn.layers.mechanisms import Full
from tests.helpers import check_layer, randomise, to_numpy

B, T, S, M, C, F, D = 2, 5, 7, 11, 13, 3, 4
SLOTS = 17
LLAMA = {
    "norm": "rms_norm",
    "normalize_first": True,
    "activation": "silu",
    "gated": True,
    "use_bias": False,
    "positions": RotaryPositions(D, max_position=SLOTS),
}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def block(kind, **options):
    return kind(6, D, F, num_key_value_heads=2, **options)


@pytest.mark.parametrize("normalize_first", [False, True])
@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_encoder_definition(norm, normalize_first):
    layer = block(EncoderBlock, norm=norm, normalize_first=normalize_first)
    x, mask = normal(B, T, M), np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    layer(x)
    randomise(layer)
    out = to_numpy(layer(x, attention_mask=mask))
    sublayers = (
        (lambda y: layer.attention(y, attention_mask=mask), layer.attention_norm),
        (layer.feed_forward, layer.feed_forward_norm),
    )
    for sublayer, normalise in sublayers:
        if normalize_first:
            x = x + to_numpy(sublayer(normalise(x)))
        else:
            x = to_numpy(normalise(x + to_numpy(sublayer(x))))
    np.testing.assert_allclose(out, x, rtol=0, atol=1e-5)


def attended(layer, y):
    return layer.attention(y)


def fed(layer, y):
    return layer.feed_forward(y)


def both(layer, x):
    x = x + layer.attention_output_norm(attended(layer, layer.attention_norm(x)))
    return x + layer.feed_forward_output_norm(fed(layer, layer.feed_forward_norm(x)))


def output(layer, x):
    x = x + layer.attention_norm(attended(layer, x))
    return x + layer.feed_forward_norm(fed(layer, x))


def parallel(layer, x):
    own = fed(layer, layer.feed_forward_norm(x))
    return x + attended(layer, layer.attention_norm(x)) + own


def parallel_shared(layer, x):
    read = layer.attention_norm(x)
    return x + attended(layer, read) + fed(layer, read)


def every_norm(layer, x):
    y = layer.attention_output_norm(attended(layer, layer.attention_norm(x)))
    x = layer.attention_sum_norm(x + y)
    y = layer.feed_forward_output_norm(fed(layer, layer.feed_forward_norm(x)))
    return layer.feed_forward_sum_norm(x + y)


RESIDUALS = {
    "both": ("both", both, 4),
    "output": ("output", output, 2),
    "parallel": ("parallel", parallel, 2),
    "parallel_shared": ("parallel_shared", parallel_shared, 1),
    "every norm": (Residual(True, True, True), every_norm, 6),
    "no norm": (Residual(), lambda layer, x: (y := x + attended(layer, x)) + fed(layer, y), 0),
}


@pytest.mark.parametrize("kind", [EncoderBlock, DecoderBlock])
@pytest.mark.parametrize("name", RESIDUALS)
def test_norms_and_sublayers_stand_where_the_residual_says(kind, name):
    residual, definition, norms = RESIDUALS[name]
    layer = block(kind, residual=residual, norm="rms_norm")
    x = normal(B, T, M)
    layer(x)
    randomise(layer)
    expected = to_numpy(definition(layer, keras.ops.convert_to_tensor(x)))
    # Where no norm bounds the stream, its numbers are large.
    np.testing.assert_allclose(to_numpy(layer(x)), expected, rtol=1e-5, atol=1e-4)
    assert sum("norm" in v.path for v in layer.weights) == norms


@pytest.mark.parametrize("name", ["pre", "post"])
def test_the_names_of_what_normalize_first_says(name):
    layers = [
        block(EncoderBlock, residual=name),
        block(EncoderBlock, normalize_first=name == "pre"),
    ]
    x = normal(B, T, M)
    outputs = []
    for layer in layers:
        layer(x)
        outputs.append(to_numpy(randomise(layer)(x)))
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("residual", ["both", "parallel_shared"])
def test_steps_of_other_residuals_equal_the_full_pass(residual):
    layer = block(DecoderBlock, residual=residual)
    x = normal(B, T, M)
    layer(x)
    randomise(layer)
    full = to_numpy(layer(x))
    cache = tuple(np.zeros((B, 2, 0, D), "float32") for _ in range(2))
    for start, stop in ((0, 3), (3, 4), (4, 5)):
        out, cache = layer(x[:, start:stop], cache=cache)
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-5)


def test_another_layer_as_feed_forward():
    layer = EncoderBlock(6, D, feed_forward=FeedForward(F, activation="relu", name="any"))
    twin = EncoderBlock(6, D, F, activation="relu")
    x = normal(B, T, M)
    outputs = []
    for one in (layer, twin):
        one(x)
        outputs.append(to_numpy(randomise(one)(x)))
    assert [v.path.split("/")[1:] for v in layer.weights] == [
        v.path.split("/")[1:] for v in twin.weights
    ]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residual": "sideways"}, "residual must be a Residual or one of pre, post, output"),
        ({"residual": 3}, "residual must be a Residual"),
        ({"residual": "both", "normalize_first": True}, "leave out normalize_first"),
        ({"residual": "parallel", "cross_attention": True}, "no parallel sublayers"),
        ({"intermediate_dim": None}, "needs intermediate_dim"),
    ],
)
def test_blocks_that_do_not_say_how_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DecoderBlock(**({"num_heads": 6, "head_dim": D, "intermediate_dim": F} | options))
    with pytest.raises(ValueError, match="leave out sum_norm"):
        Residual(sum_norm=True, parallel=True)
    with pytest.raises(ValueError, match="ask for both"):
        Residual(input_norm=True, shared_norm=True)


def test_decoder_with_context():
    layer = block(DecoderBlock, cross_attention=True)
    x, context = normal(B, T, M), normal(B, S, C, seed=1)
    mask = np.ones((B, S), "int32")
    mask[0, 3:] = 0
    layer(x, context)
    randomise(layer)
    out = to_numpy(layer(x, context, context_mask=mask))
    y = to_numpy(layer.attention_norm(x + to_numpy(layer.attention(x))))
    crossed = to_numpy(layer.cross_attention(y, context, attention_mask=mask))
    y = to_numpy(layer.cross_attention_norm(y + crossed))
    y = to_numpy(layer.feed_forward_norm(y + to_numpy(layer.feed_forward(y))))
    np.testing.assert_allclose(out, y, rtol=0, atol=1e-5)


def test_decoder_does_not_see_the_future():
    layer = block(DecoderBlock, **LLAMA)
    x = normal(B, T, M)
    layer(x)
    randomise(layer)
    before = to_numpy(layer(x))
    x[:, 3:] = 7.0
    after = to_numpy(layer(x))
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.abs(after[:, 3:] - before[:, 3:]).max() > 0.1


def test_caches_equal_the_full_pass():
    layer = block(DecoderBlock, window=(2, 0), **LLAMA)
    x = normal(B, T, M)
    layer(x)
    randomise(layer)
    full = to_numpy(layer(x))
    growing = tuple(np.zeros((B, 2, 0, D), "float32") for _ in range(2))
    fixed = tuple(normal(B, 2, SLOTS, D, seed=3) for _ in range(2))
    for start, stop in ((0, 3), (3, 4), (4, 5)):
        step = x[:, start:stop]
        out, growing = layer(step, cache=growing)
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-5)
        out, fixed = layer(step, cache=fixed, cache_position=np.int32(start))
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalize_first", [False, True])
def test_steps_with_a_context_equal_the_full_pass(normalize_first):
    layer = block(DecoderBlock, cross_attention=True, normalize_first=normalize_first)
    x, context = normal(B, T, M), normal(B, S, C, seed=1)
    mask = np.array([[1, 1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 1]])
    layer(x, context)
    randomise(layer)
    full = to_numpy(layer(x, context, context_mask=mask))
    growing, crossed = (tuple(np.zeros((B, 2, 0, D), "float32") for _ in range(2)),) * 2
    fixed = tuple(normal(B, 2, SLOTS, D, seed=3) for _ in range(2))
    for start, stop in ((0, 3), (3, 4), (4, 5)):
        step = x[:, start:stop]
        out, growing, crossed = layer(
            step,
            context[:, crossed[0].shape[2] :],
            context_mask=mask,
            cache=growing,
            context_cache=crossed,
        )
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-5)
        assert growing[0].shape == (B, 2, stop, D) and crossed[0].shape == (B, 2, S, D)
        out, fixed = layer(
            step,
            context_mask=mask,
            cache=fixed,
            cache_position=np.int32(start),
            context_cache=crossed,
        )
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-5)


def test_cross_attention_needs_a_context():
    layer = block(DecoderBlock, cross_attention=True)
    layer(normal(B, T, M), normal(B, S, C))
    with pytest.raises(ValueError, match="needs `context`, or `context_cache`"):
        layer(normal(B, T, M))


@pytest.mark.parametrize("kind", [EncoderBlock, DecoderBlock])
def test_implicit_mask(kind):
    ids = np.array([[3, 1, 4, 0, 0], [2, 7, 1, 8, 0]])
    embedding = keras.layers.Embedding(9, M, mask_zero=True)
    layer = block(kind, normalize_first=True, norm="rms_norm")
    masked = layer(embedding(ids))
    explicit = layer(to_numpy(embedding(ids)), attention_mask=ids != 0)
    np.testing.assert_array_equal(to_numpy(masked), to_numpy(explicit))
    assert masked._keras_mask is not None


@pytest.mark.parametrize("name", ["encoder", "llama", "parallel", "cross", "cross caches"])
def test_contract(name, tmp_path):
    inputs = {"x": normal(B, T, M)}
    if name == "encoder":
        layer = block(EncoderBlock)
        inputs["attention_mask"] = np.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]])
    elif name == "llama":
        layer = block(DecoderBlock, **LLAMA)
        inputs["cache"] = normal(B, 2, S, D, seed=1), normal(B, 2, S, D, seed=2)
    elif name == "parallel":
        residual = Residual(input_norm=True, output_norm=True, parallel=True)
        layer = block(DecoderBlock, residual=residual, feed_forward=FeedForward(F))
    else:
        layer = block(DecoderBlock, cross_attention=True, normalize_first=True)
        inputs["context"] = normal(B, S, C, seed=1)
    if name == "cross caches":
        inputs["cache"] = normal(B, 2, 3, D, seed=2), normal(B, 2, 3, D, seed=3)
        inputs["context_cache"] = normal(B, 2, S, D, seed=4), normal(B, 2, S, D, seed=5)
    check_layer(layer, inputs, tmp_path)


def test_dropout_acts_in_training_only():
    layer = block(EncoderBlock, dropout=0.3)
    x = normal(B, T, M)
    plain = to_numpy(layer(x))
    np.testing.assert_array_equal(to_numpy(layer(x, training=False)), plain)
    assert np.abs(to_numpy(layer(x, training=True)) - plain).max() > 1e-3


def test_dense_is_what_no_mechanism_is():
    plain = block(DecoderBlock, window=(2, 0), softcap=3.0)
    given = block(DecoderBlock, window=(2, 0), softcap=3.0, attention=Full())
    x, cache = normal(B, T, M), (np.zeros((B, 2, 0, D), "float32"),) * 2
    for layer in (plain, given):
        layer(x)
        randomise(layer, seed=3)
    assert given.get_config()["attention"] is None and given.state_shapes() is None
    outputs = [to_numpy(layer(x, cache=cache)[0]) for layer in (plain, given)]
    np.testing.assert_array_equal(*outputs)
