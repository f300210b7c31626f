import keras
import numpy as np
import pytest

from keras_seqattn.layers import AttentiveDecoder, Maxout, ReverseTime
from keras_seqattn.layers.recording import recording
from tests.helpers import check_layer, compiled, randomise, to_numpy
from tests.layers.recurrent_reference import attentive_decoder

B, T, S, N, M, C, A = 3, 5, 7, 11, 13, 17, 3
# Float32 rounding, fed back through five steps of products of widths up to 17.
TOLERANCE = 1e-5
MASK = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 1, 0]], "int32")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def inputs(length=T):
    return {
        "inputs": normal(B, length, M),
        "context": normal(B, S, C, seed=1),
        "initial_state": normal(B, N, seed=2),
        "context_mask": MASK,
    }


def decoder():
    layer = AttentiveDecoder(N, A, name="decoder")
    layer(**inputs())
    return randomise(layer, seed=3)


def definition(layer, inputs, context, initial_state, context_mask):
    weights = {
        v.path.removeprefix("decoder/"): to_numpy(v.value).astype("float64") for v in layer.weights
    }
    results = [np.zeros((B, *shape)) for shape in ((T, N), (T, C), (N,), (T, S))]
    for b in range(B):
        real = context_mask[b].astype("bool")
        row = attentive_decoder(inputs[b], context[b, real], initial_state[b], weights)
        for result, values in zip(results[:3], row[:3], strict=True):
            result[b] = values
        results[3][b, :, real] = row[3].T
    return results


@pytest.fixture(scope="module")
def whole():
    """A decoder, and what it makes of whole targets."""
    layer = decoder()
    return layer, to_numpy(layer(**inputs(), return_attention_scores=True))


def test_definition(whole):
    layer, results = whole
    for actual, expected in zip(results, definition(layer, **inputs()), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def test_single_steps_equal_teacher_forcing(whole):
    (layer, results), call = whole, inputs()
    x, state = call.pop("inputs"), call.pop("initial_state")
    call["keys"] = layer.compute_keys(call["context"])
    step = compiled(
        lambda x, state: layer(x, **call, initial_state=state, return_attention_scores=True)
    )
    steps = []
    for t in range(T):
        *parts, scores = step(keras.ops.convert_to_tensor(x[:, t : t + 1]), state)
        state = parts.pop()
        steps.append([*parts, scores])
    joined = [
        np.concatenate([to_numpy(part) for part in parts], 1) for parts in zip(*steps, strict=True)
    ]
    for a, e in zip([*joined[:2], to_numpy(state), joined[2]], results, strict=True):
        np.testing.assert_allclose(a, e, rtol=0, atol=TOLERANCE)


def test_the_future_and_padding_change_nothing(whole):
    (layer, (states, contexts, _, _)), call = whole, inputs()
    call["inputs"][:, 3:] = 7.0
    call["context"][MASK == 0] = -5.0
    changed, changed_contexts, *_ = to_numpy(layer(**call, return_attention_scores=True))
    np.testing.assert_array_equal(changed[:, :4], states[:, :4])
    np.testing.assert_array_equal(changed_contexts[:, :4], contexts[:, :4])
    assert np.abs(changed[:, 4:] - states[:, 4:]).max() > 0.1


def test_without_a_source_or_a_state(whole):
    (layer, _), call = whole, inputs()
    call["context_mask"] = 0 * MASK
    del call["initial_state"]
    states, contexts, _, scores = to_numpy(layer(**call, return_attention_scores=True))
    assert not contexts.any() and not scores.any()
    assert not states[:, 0].any() and states[:, 1].any()


def test_recorded_scores(whole):
    layer, (*_, scores) = whole
    with recording() as records:
        layer(**inputs())
    assert [recorded for recorded, _ in records] == [layer]
    np.testing.assert_array_equal(to_numpy(records[0][1]), scores)


def test_the_contract_of_the_decoder(tmp_path):
    check_layer(AttentiveDecoder(N, A), inputs(), tmp_path)


def test_symbolic_shapes():
    x, context = keras.Input((None, M)), keras.Input((None, C))
    outputs = AttentiveDecoder(N)(x, context, return_attention_scores=True)
    shapes = [(None, None, N), (None, None, C), (None, N), (None, None, None)]
    assert [y.shape for y in outputs] == shapes


def test_maxout(tmp_path):
    layer = Maxout(N, pool_size=3)
    out = check_layer(layer, {"inputs": normal(B, T, M)}, tmp_path)
    kernel, bias = layer.get_weights()
    linear = normal(B, T, M) @ kernel + bias
    pools = [linear[..., 3 * unit : 3 * unit + 3].max(-1) for unit in range(N)]
    np.testing.assert_allclose(out, np.stack(pools, -1), rtol=0, atol=TOLERANCE)


def test_reversed_time(tmp_path):
    x = normal(B, T, M)
    np.testing.assert_array_equal(check_layer(ReverseTime(), {"x": x}, tmp_path), x[:, ::-1])
