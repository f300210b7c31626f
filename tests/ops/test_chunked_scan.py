"""The chunked scan against its recurrence in float64: values, gradients, states, causality."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.ops import chunked_scan
from tests.helpers import check_slopes, compiled, compiled_on_jax, to_numpy
from tests.mechanisms import ragged_mask
from tests.ops.recurrence import recurrence

CHUNK, BATCH, GROUPS, HEADS, DIM, VALUE_DIM = 8, 4, 3, 6, 5, 7
KINDS = {
    "plain": (None, False),
    "scalar": ("head", False),
    "channel": ("channel", False),
    "delta": ("head", True),
    "channel_delta": ("channel", True),
}


def arguments(kind, length, seed=0):
    """Random arguments by name, with a ragged mask; decays from none to almost all of it."""
    random = np.random.default_rng([seed, length])
    decay, delta = KINDS[kind]
    keys, values = (BATCH, length, GROUPS, DIM), (BATCH, length, HEADS)
    query, key = random.standard_normal((2, *keys))
    key /= np.linalg.norm(key, axis=-1, keepdims=True)
    made = {"query": query, "key": key, "value": random.standard_normal((*values, VALUE_DIM))}
    if decay is not None:
        shape = values if decay == "head" else keys
        made["log_decay"] = -np.exp(2 * random.standard_normal(shape))
    if delta:
        made["beta"] = random.uniform(size=values)
    made["state"] = random.standard_normal((BATCH, HEADS, DIM, VALUE_DIM))
    made = {name: x.astype("float32") for name, x in made.items()}
    return made | {"mask": ragged_mask(length)}


SCAN = compiled_on_jax(lambda arrays: chunked_scan(**arrays, chunk_size=CHUNK))


def run(**arrays):
    return SCAN({name: ops.convert_to_tensor(x) for name, x in arrays.items()})


def assert_close(actual, expected, tolerance=1e-5):
    actual, bound = to_numpy(actual), tolerance * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound)


CASES = [(kind, n) for kind in ("scalar", "channel", "delta") for n in (1, 5, CHUNK, 19)]


@pytest.mark.parametrize("kind, length", [*CASES, ("plain", 19), ("channel_delta", 19)])
def test_recurrence(kind, length):
    arrays = arguments(kind, length)
    out, state = run(**arrays)
    expected, last = recurrence(**arrays)
    assert_close(out, expected)
    assert_close(state, last)
    # A row of padding alone leaves its state as it was, to the bit.
    assert np.array_equal(to_numpy(state)[3], arrays["state"][3])


@pytest.mark.parametrize("kind", ["scalar", "channel_delta"])
def test_without_mask_and_state(kind):
    arrays = arguments(kind, 19)
    del arrays["mask"], arrays["state"]
    out, state = run(**arrays)
    expected, last = recurrence(**arrays)
    assert_close(out, expected)
    assert_close(state, last)


@pytest.mark.parametrize("kind", ["scalar", "channel", "delta"])
def test_gradients(kind):
    arrays = arguments(kind, 19)
    mask = arrays.pop("mask")
    random = np.random.default_rng(3)
    out_weight = random.standard_normal(arrays["value"].shape)
    state_weight = random.standard_normal(arrays["state"].shape)

    def loss(**given):
        out, state = run(**given, mask=mask)
        terms = ((out, out_weight), (state, state_weight))
        return sum(ops.sum(ops.multiply(x, w.astype("float32"))) for x, w in terms)

    def define(**given):
        out, state = recurrence(**given, mask=mask)
        return (out * out_weight).sum() + (state * state_weight).sum()

    # float32, over sums of thousands of products; the decays bend the slope of longer steps.
    check_slopes(loss, define, arrays, tolerance=2e-4, step=1e-6)


@pytest.mark.parametrize("kind", ["channel", "delta"])
def test_chunks_and_steps_are_the_parallel_form(kind):
    arrays = arguments(kind, 19)
    expected, _ = recurrence(**arrays)
    first = arrays.pop("state")
    for sizes in ((9, 1, 9), (1,) * 19):
        state, outs, start = first, [], 0
        for size in sizes:
            part = {name: x[:, start : start + size] for name, x in arrays.items()}
            out, state = run(**part, state=state)
            outs.append(to_numpy(out))
            start += size
        assert_close(np.concatenate(outs, axis=1), expected)


@pytest.mark.parametrize("kind", ["scalar", "channel", "delta"])
def test_the_future_does_not_leak(kind):
    arrays = arguments(kind, 19)
    before = to_numpy(run(**arrays)[0])
    for cut in (3, 8, 18):
        future = {name: x.copy() for name, x in arrays.items()}
        for name in {*future} - {"state", "mask"}:
            x = future[name]
            x[:, cut:] = 0.5 * x[:, cut:] - (0.1 if name == "log_decay" else -0.1)
        after = to_numpy(run(**future)[0])
        assert np.array_equal(before[:, :cut], after[:, :cut])
        assert not np.array_equal(before[:, cut:], after[:, cut:])


@pytest.mark.parametrize("kind", ["scalar", "channel", "delta"])
def test_sudden_decay(kind):
    """All is forgotten every few tokens, next to tokens that forget nothing."""
    arrays = arguments(kind, 19)
    arrays["log_decay"][:, ::3] = -3e4
    arrays["log_decay"][:, 1::3] = -1e-3
    assert_close(run(**arrays)[0], recurrence(**arrays)[0])


def test_one_key_again_and_again():
    """The delta rule with equal keys, where a power series of the inverse has terms of 1e17."""
    random = np.random.default_rng(2)
    key = np.full((1, 64, 1, DIM), DIM**-0.5, "float32")
    value = random.standard_normal((1, 64, 1, VALUE_DIM)).astype("float32")
    beta = np.full((1, 64, 1), 0.999, "float32")
    out, _ = compiled(chunked_scan)(
        *(ops.convert_to_tensor(x) for x in (key, key, value)), beta=ops.convert_to_tensor(beta)
    )
    assert_close(out, recurrence(key, key, value, beta=beta)[0])


def test_half_precision_keeps_a_float32_state():
    arrays = arguments("delta", 19)
    del arrays["mask"]
    out, state = run(**{name: ops.cast(x, "bfloat16") for name, x in arrays.items()})
    dtypes = [keras.backend.standardize_dtype(x.dtype) for x in (out, state)]
    assert dtypes == ["bfloat16", "float32"]
    # 8 bits of mantissa in the arguments and the result.
    assert_close(out, recurrence(**arrays)[0], 0.05)


def test_bad_shapes_are_refused():
    arrays = arguments("scalar", 5)
    with pytest.raises(ValueError, match="3 key heads, 4 value heads"):
        chunked_scan(**arrays | {"value": arrays["value"][:, :, :4], "state": None})
    with pytest.raises(ValueError, match=r"log_decay must have shape \(b, t, 6\)"):
        chunked_scan(**arrays | {"log_decay": arrays["log_decay"][:, :, :5]})
    with pytest.raises(ValueError, match="power of two"):
        chunked_scan(**arrays, chunk_size=48)
