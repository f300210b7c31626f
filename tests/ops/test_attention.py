import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.ops import attention
from tests.helpers import compiled, gradients, to_numpy
from tests.ops import reference
from tests.ops.reference import HEADS, B, D, E, P, S, T

# float32 sums of about ten products of size one.
TOLERANCE = 3e-5


def operands(heads, groups, seed=0, t=T, s=S):
    rng = np.random.default_rng(seed)
    shapes = (B, t, heads, D), (B, s, groups, D), (B, s, groups, E)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def padding(length, seed=1):
    """Row 0 padded on the right, row 1 on the left."""
    mask = np.ones((B, length), "int32")
    mask[0, length - 2 :] = 0
    mask[1, :1] = 0
    return mask


def extras(heads, total, seed=2):
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.standard_normal(shape).astype("float32")

    pairs = rng.random((B, T, total)) < 0.6
    return {
        "plain": {},
        "causal": {"causal": True},
        "window": {"window": (2, 1)},
        "window_left": {"causal": True, "window": (2, None)},
        "window_right": {"window": (None, 1)},
        "window_causal_right": {"causal": True, "window": (1, 2)},
        "mask_keys": {"mask": padding(total)},
        "mask_pairs": {"mask": pairs},
        "mask_heads": {"mask": rng.random((1, heads, T, total)) < 0.6},
        "mask_batch": {"mask": pairs[:, None], "causal": True},
        "bias": {"bias": normal(1, heads, T, total)},
        "bias_mask": {"bias": normal(B, 1, T, total), "mask": padding(total).astype(bool)},
        "scale": {"scale": 0.71},
        "softcap": {"softcap": 0.9, "causal": True},
        "sinks": {"sinks": normal(heads), "mask": padding(total)},
        "all": {
            "mask": padding(total),
            "bias": normal(B, heads, T, total),
            "sinks": normal(heads),
            "softcap": 1.3,
            "scale": 0.5,
            "causal": True,
            "window": (4, 0),
        },
    }


CASES = list(extras(1, S))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("heads, groups", HEADS)
def test_formula(heads, groups, case):
    query, key, value = operands(heads, groups)
    options = extras(heads, S)[case]
    expected, probabilities = reference.attention(query, key, value, **options)
    out = to_numpy(attention(query, key, value, **options))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)
    # With another number of heads the scores differ in nothing but their own axes.
    if heads != 6:
        return
    out, scores = to_numpy(attention(query, key, value, **options, return_scores=True))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores, probabilities, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_formula_with_past(case):
    heads, groups = 6, 2
    rng = np.random.default_rng(3)
    query, key, value = operands(heads, groups, s=T)
    past_key, past_value = (
        rng.standard_normal((B, groups, P, n)).astype("float32") for n in (D, E)
    )
    options = {**extras(heads, P + T)[case], "past_key": past_key, "past_value": past_value}
    expected, _ = reference.attention(query, key, value, **options)
    out, present_key, present_value = to_numpy(attention(query, key, value, **options))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)
    for present, past, new in ((present_key, past_key, key), (present_value, past_value, value)):
        joined = np.concatenate([past, new.transpose(0, 2, 1, 3)], axis=2)
        np.testing.assert_array_equal(present, joined)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("heads, groups", HEADS)
def test_a_past_alone(heads, groups, case):
    """Keys and values in the layout of a cache, and no new ones."""
    query, key, value = operands(heads, groups)
    options = extras(heads, S)[case]
    expected, probabilities = reference.attention(query, key, value, **options)
    past = {
        "past_key": key.transpose(0, 2, 1, 3),
        "past_value": value.transpose(0, 2, 1, 3),
    }
    out = to_numpy(attention(query, **past, **options))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)
    out, scores = to_numpy(attention(query, **past, **options, return_scores=True))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(scores, probabilities, rtol=0, atol=TOLERANCE)


def test_a_past_alone_in_a_functional_model():
    query, key, value = operands(6, 2)
    inputs = keras.Input((None, 6, D)), keras.Input((2, None, D)), keras.Input((2, None, E))
    out, scores = attention(inputs[0], past_key=inputs[1], past_value=inputs[2], return_scores=True)
    assert out.shape == (None, None, 6, E) and scores.shape == (None, 6, None, None)
    model = keras.Model(inputs, out)
    past = [x.transpose(0, 2, 1, 3) for x in (key, value)]
    expected, _ = reference.attention(query, key, value)
    result = to_numpy(model([query, *past]))
    np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("value_dim", [D, E])
@pytest.mark.parametrize("heads, groups", HEADS)
def test_square_causal(heads, groups, value_dim):
    """The case that backends have kernels for, with the value size that they demand and another."""
    query, key, value = operands(heads, groups, t=S)
    value = value[..., :value_dim]
    expected, _ = reference.attention(query, key, value, causal=True)
    out = to_numpy(attention(query, key, value, causal=True))
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("heads, groups", HEADS)
def test_length_one(heads, groups):
    query, key, value = operands(heads, groups, t=1, s=1)
    out = to_numpy(attention(query, key, value, causal=True, window=(0, 0)))
    np.testing.assert_allclose(out, np.repeat(value, heads // groups, axis=2), rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"return_scores": True}, {"past": True}])
@pytest.mark.parametrize("value_dim", [D, E])
def test_rows_without_keys_are_zero(options, value_dim):
    heads = groups = 3
    query, key, value = operands(heads, groups, t=S)
    value = value[..., :value_dim]
    mask = np.ones((B, S, S), bool)
    mask[1] = False
    mask[0, 2] = False
    options = dict(options)
    if options.pop("past", False):
        mask = np.concatenate([mask] * 2, axis=2)
        options |= {
            "past_key": key.transpose(0, 2, 1, 3),
            "past_value": value.transpose(0, 2, 1, 3),
        }
    results = attention(query, key, value, mask=mask, **options)
    out = to_numpy(results[0] if isinstance(results, tuple) else results)
    assert (out[1] == 0).all() and (out[0, 2] == 0).all()
    assert (np.abs(out[0, [0, 1, 3, 4, 5, 6]]).max(axis=-1) > 0).all()
    if options.get("return_scores"):
        scores = to_numpy(results[-1])
        assert (scores[1] == 0).all() and (scores[0, :, 2] == 0).all()


def test_more_queries_than_keys():
    """The first queries lie before every key."""
    query, key, value = operands(3, 3, t=S, s=T)
    expected, _ = reference.attention(query, key, value, causal=True)
    out = to_numpy(attention(query, key, value, causal=True))
    assert (out[:, : S - T] == 0).all()
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("options", [{}, {"softcap": 2.0}, {"sinks": np.zeros(3, "float32")}])
def test_gradients_with_empty_rows(options):
    query, key, value = operands(3, 3)
    mask = padding(S)
    mask[1] = 0

    def loss(query, key, value):
        return ops.sum(ops.square(attention(query, key, value, mask=mask, **options)))

    for gradient in gradients(loss, query, key, value):
        assert np.isfinite(gradient).all()
        assert (gradient[1] == 0).all()
        assert np.abs(gradient[0]).max() > 0


@pytest.mark.parametrize("window", [None, (2, 0)])
@pytest.mark.parametrize("heads, groups", HEADS)
def test_no_leak_from_the_future(heads, groups, window):
    query, key, value = operands(heads, groups, t=S)
    before = to_numpy(attention(query, key, value, causal=True, window=window))
    for x in (query, key, value):
        x[:, 4:] = 50.0
    after = to_numpy(attention(query, key, value, causal=True, window=window))
    np.testing.assert_array_equal(after[:, :4], before[:, :4])
    assert np.abs(after[:, 4:] - before[:, 4:]).max() > 0.1


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("heads, groups", HEADS)
def test_padding_changes_nothing(heads, groups, side):
    query, key, value = operands(heads, groups)
    plain = to_numpy(attention(query, key, value))
    width = (2, 0) if side == "left" else (0, 2)
    pad = [(0, 0), width, (0, 0), (0, 0)]
    key, value = (np.pad(x, pad, constant_values=9.0) for x in (key, value))
    mask = np.pad(np.ones((B, S), "int32"), [(0, 0), width])
    padded = to_numpy(attention(query, key, value, mask=mask))
    np.testing.assert_allclose(padded, plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("window", [None, (3, 0)])
@pytest.mark.parametrize("heads, groups", HEADS)
def test_steps_equal_the_full_pass(heads, groups, window):
    query, key, value = operands(heads, groups, t=S)
    full = to_numpy(attention(query, key, value, causal=True, window=window))
    past = [np.zeros((B, groups, 0, n), "float32") for n in (D, E)]
    for start, stop in ((0, 4), (4, 5), (5, 7)):
        step = [x[:, start:stop] for x in (query, key, value)]
        out, *past = attention(
            *step, causal=True, window=window, past_key=past[0], past_value=past[1]
        )
        np.testing.assert_allclose(to_numpy(out), full[:, start:stop], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 5e-3), ("bfloat16", 4e-2)])
@pytest.mark.parametrize("case", ["plain", "causal", "bias_mask", "all"])
def test_half_precision(dtype, tolerance, case):
    """One rounding of inputs, probabilities and result each."""
    query, key, value = (ops.cast(x, dtype) for x in operands(6, 2))
    options = extras(6, S)[case]
    expected, _ = reference.attention(*to_numpy([query, key, value]), **options)
    out = attention(query, key, value, **options)
    assert keras.backend.standardize_dtype(out.dtype) == dtype
    np.testing.assert_allclose(to_numpy(out), expected, rtol=0, atol=tolerance)


def test_float16_scores_beyond_its_range():
    """Unscaled, q k' is about 10^6, which float16 cannot hold; scaled it is about 300."""
    query, key, value = (ops.cast(x, "float16") for x in operands(3, 3))
    query, key = ops.multiply(query, 300.0), ops.multiply(key, 300.0)
    for options in ({}, {"softcap": 50.0}):
        out = to_numpy(attention(query, key, value, scale=1e-4, **options))
        assert np.isfinite(out).all()


@pytest.mark.parametrize("case", ["plain", "causal", "all"])
@pytest.mark.parametrize("heads, groups", HEADS)
def test_compiled(heads, groups, case):
    query, key, value = operands(heads, groups)
    options = extras(heads, S)[case]
    function = compiled(lambda q, k, v: attention(q, k, v, **options))
    out = to_numpy(function(*(ops.convert_to_tensor(x) for x in (query, key, value))))
    expected, _ = reference.attention(query, key, value, **options)
    np.testing.assert_allclose(out, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.backend_free
def test_symbolic_shapes():
    query = keras.KerasTensor((None, None, 6, D))
    key, value = keras.KerasTensor((None, None, 2, D)), keras.KerasTensor((None, None, 2, E))
    assert attention(query, key, value).shape == (None, None, 6, E)
    past = {
        "past_key": keras.KerasTensor((None, 2, None, D)),
        "past_value": keras.KerasTensor((None, 2, None, E)),
    }
    out, present_key, present_value, scores = attention(
        query, key, value, **past, return_scores=True
    )
    assert out.shape == (None, None, 6, E)
    assert present_key.shape == (None, 2, None, D)
    assert present_value.shape == (None, 2, None, E)
    assert scores.shape == (None, 6, None, None)
    fixed = keras.KerasTensor((B, T, 6, D)), keras.KerasTensor((B, S, 2, D))
    _, scores = attention(*fixed, keras.KerasTensor((B, S, 2, E)), return_scores=True)
    assert scores.shape == (B, 6, T, S)


@pytest.mark.backend_free
def test_bad_arguments():
    query, key, value = operands(3, 3)
    with pytest.raises(ValueError, match="mask must have shape"):
        attention(query, key, value, mask=np.ones(S, bool))
    with pytest.raises(ValueError, match="window"):
        attention(query, key, value, window=(-1, 0))
    with pytest.raises(ValueError, match="must divide"):
        attention(query, key[:, :, :2], value[:, :, :2])
