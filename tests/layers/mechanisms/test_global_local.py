"""Longformer's attention against its O(n^2) definition, with its global tokens, and in ONNX."""

import keras
import numpy as np
import pytest

from keras_seqattn.layers import MultiHeadAttention
from keras_seqattn.layers.mechanisms import GlobalLocal
from tests.helpers import check_layer, compiled, compiled_on_jax, randomise, to_numpy
from tests.mechanisms import (
    GROUPS,
    HEAD_DIM,
    HEADS,
    VALUE_DIM,
    check_export,
    check_mechanism,
    heads,
    softmax_attention,
)

WIDTH, MOST = 11, 5


def _mechanism(left, right):
    mechanism = GlobalLocal(left, right, MOST, input_dim=WIDTH)
    mechanism.build((None, None, HEADS, HEAD_DIM), (None, None, GROUPS, HEAD_DIM),
                    (None, None, GROUPS, VALUE_DIM))  # fmt: skip
    return randomise(mechanism, seed=7)


def _inputs(length, count=3):
    random = np.random.default_rng([length, 9])
    inputs = random.standard_normal((4, length, WIDTH)).astype("float32")
    global_mask = np.zeros((4, length), "int32")
    for row in global_mask:
        row[random.choice(length, min(count, length), replace=False)] = 1
    return {"inputs": inputs, "global_mask": global_mask}


def _extras(mask):
    return {name: value[: len(mask)] for name, value in _inputs(mask.shape[1]).items()}


def _project(mechanism, name, inputs, size):
    layer = getattr(mechanism, f"{name}_global")
    kernel, bias = (to_numpy(x.value).astype("float64") for x in (layer.kernel, layer.bias))
    x = (inputs @ kernel + bias).reshape(*inputs.shape[:2], -1, size)
    return x.repeat(HEADS // x.shape[2], axis=2)


def _definition(mechanism):
    def attend(q, k, v, mask):
        given = _extras(mask)
        is_global = given["global_mask"].astype(bool) & mask
        place = np.arange(mask.shape[1])
        distance = place - place[:, None]
        near = (distance >= -mechanism.left) & (distance <= mechanism.right)
        allowed = mask[:, None] & (near | is_global[:, None])
        local = softmax_attention(q, k, v, allowed[:, None])
        names = {"query": HEAD_DIM, "key": HEAD_DIM, "value": VALUE_DIM}
        own = [_project(mechanism, name, given["inputs"], n) for name, n in names.items()]
        far = softmax_attention(*own, mask[:, None, None])
        return np.where(is_global[:, :, None, None], far, local)

    return attend


@pytest.mark.parametrize("window", [(3, 2), (0, 7), (40, 40)], ids=str)
def test_definition(window):
    mechanism = _mechanism(*window)
    check_mechanism(mechanism, _definition(mechanism), (32, 83), extras=_extras)


def _runner(mechanism):
    """Calls it with query, key, value and what comes with them."""
    return compiled_on_jax(lambda *arrays, **call: mechanism(*arrays, **call))


def test_global_tokens_are_counted_once():
    """A window over everything, and some of it global: more weight on those would show."""
    q, k, v = heads(7)
    given = _inputs(7, MOST)
    out = to_numpy(_runner(_mechanism(9, 9))(q, k, v, **given))
    repeated = [x.astype("float64").repeat(HEADS // GROUPS, axis=2) for x in (k, v)]
    expected = softmax_attention(q.astype("float64"), *repeated, True)
    local = given["global_mask"] == 0
    # float32 rounding.
    np.testing.assert_allclose(out[local], expected[local], rtol=0, atol=1e-5)


def test_without_global_tokens_it_is_a_window():
    q, k, v = heads(19)
    run = _runner(_mechanism(3, 2))
    local, given = to_numpy(run(q, k, v)), to_numpy(run(q, k, v, **_inputs(19, 0)))
    # float32 rounding: keys without weight are summed as well.
    np.testing.assert_allclose(given, local, rtol=0, atol=1e-6)


def test_a_global_token_reaches_everything():
    """One changed value far from all windows moves every row through the global tokens alone."""
    q, k, v = heads(83)
    run, given = _runner(_mechanism(1, 1)), _inputs(83, 0)
    given["global_mask"][:, 40] = 1

    def moved():
        return np.abs(to_numpy(run(q, k, v, **given)) - before).max(axis=(0, 2, 3)) > 1e-4

    before = to_numpy(run(q, k, v, **given))
    v[:, 40] += 1.0
    # Itself it sees the values of its own projection, which come of the inputs.
    assert (moved() == (np.arange(83) != 40)).all()
    given["inputs"][:, 3] += 1.0
    assert moved().all()


def test_more_global_tokens_than_there_is_room_for():
    """An error where it can be one; in a compiled function the first of them count."""
    q, k, v = heads(19)
    mechanism, given = _mechanism(3, 2), _inputs(19, MOST + 2)
    with pytest.raises(ValueError, match="A row has 7 global tokens and max_global_tokens=5"):
        mechanism(q, k, v, **given)
    # What is not compiled there raises.
    if keras.backend.backend() == "torch":
        return
    run = compiled(lambda *arrays, **call: mechanism(*arrays, **call))
    found = to_numpy(run(q, k, v, **given))
    given["global_mask"] *= given["global_mask"].cumsum(1) <= MOST
    np.testing.assert_array_equal(found, to_numpy(run(q, k, v, **given)))


def test_layer_contract(tmp_path):
    layer = MultiHeadAttention(6, 5, 3, value_dim=7, name="attention",
                               attention=GlobalLocal(3, 2, 4, input_dim=13))  # fmt: skip
    x = np.random.default_rng(0).standard_normal((3, 17, 13)).astype("float32")
    global_mask = np.zeros((3, 17), "int32")
    global_mask[:, [0, 9]] = 1
    mask = np.ones((3, 17), "int32")
    mask[1, :4] = mask[2, 11:] = 0
    inputs = {"query": x, "attention_mask": mask, "global_attention_mask": global_mask}
    check_layer(layer, inputs, tmp_path)
    paths = {v.path for v in layer.weights}
    assert "attention/mechanism/query_global/kernel" in paths


def test_export(tmp_path):
    check_export(GlobalLocal(9, 4, MOST, input_dim=WIDTH), tmp_path, global_mask=True)


def test_what_is_refused():
    q, k, v = heads(7)
    mechanism, given = _mechanism(3, 2), _inputs(7)
    with pytest.raises(ValueError, match="cannot be causal"):
        mechanism(q, k, v, causal=True, **given)
    with pytest.raises(ValueError, match="no state"):
        mechanism(q, k, v, state=(), **given)
    with pytest.raises(ValueError, match="`inputs`, which is missing"):
        mechanism(q, k, v, global_mask=given["global_mask"])
    for sizes in ((-1, 2, 3), (2, -1, 3), (2, 2, 0)):
        with pytest.raises(ValueError, match="must be a whole number from [01]"):
            GlobalLocal(*sizes)
