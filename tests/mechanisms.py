"""What every attention mechanism is held to: its O(n^2) definition, its forms, its ONNX file."""

import keras
import numpy as np
import onnxruntime
from keras import ops

from keras_seqattn.layers import MultiHeadAttention
from keras_seqattn.onnx import export
from tests.helpers import check_slopes, compiled, compiled_on_jax, randomise, to_numpy

HEADS, GROUPS, HEAD_DIM, VALUE_DIM = 4, 2, 5, 7
EXPORT_LENGTHS = (1, 17, 333, 4099)


def softmax_attention(q, k, v, allowed, scale=None):
    """`softmax(q k' / sqrt(d) + log(allowed)) v` in float64; rows without any pair give zeros.

    Args:
        q, k, v: float64 (b, t, h, d), (b, s, h, d), (b, s, h, e).
        allowed: bool, or how often each key counts; broadcasts to (b, h, t, s).
        scale: factor of the scores; None is `1 / sqrt(d)`.
    """
    scores = np.einsum("bthd,bshd->bhts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    weights = allowed * np.exp(scores - scores.max(-1, keepdims=True))
    total = weights.sum(-1, keepdims=True)
    return np.einsum("bhts,bshe->bthe", weights / np.where(total == 0, 1.0, total), v)


def heads(length, batch=4, seed=0):
    """Random query, key and value, float32 (b, t, h|g, d|e)."""
    random = np.random.default_rng([seed, length])
    shapes = ((HEADS, HEAD_DIM), (GROUPS, HEAD_DIM), (GROUPS, VALUE_DIM))
    return [random.standard_normal((batch, length, *shape)).astype("float32") for shape in shapes]


def ragged_mask(length):
    """int32 (4, t): a full row, one padded on the left, one on the right, one of padding alone."""
    mask = np.ones((4, length), "int32")
    padded = min(max(length // 3, 1), length - 1)
    mask[1, :padded] = 0
    mask[2, length - padded :] = 0
    mask[3] = 0
    return mask


def check_mechanism(mechanism, definition, lengths, causal=False, tolerance=1e-5, extras=None):
    """Agreement with the definition, in value and gradient, under ragged padding, without leaks.

    Args:
        mechanism: a `Mechanism`; weights that it has are taken as they are.
        definition: (q, k, v, mask) -> out in NumPy float64, by the formula; k and v come with h
            heads, mask is bool (b, s).
        lengths: below, at and not divisible by the window or block; 1 is always tried.
        causal: as in the mechanism's call.
        tolerance: largest error, relative to the largest value of the output where that is over 1.
        extras: function of the mask -> further call arguments.
    """
    run = compiled_on_jax(lambda q, k, v, **call: mechanism(q, k, v, causal=causal, **call))
    for length in (1, *lengths):
        q, k, v = heads(length)
        mask = ragged_mask(length)
        more = extras(mask) if extras else {}
        actual = to_numpy(run(q, k, v, mask=mask, **more))
        expected = _define(definition, q, k, v, mask)
        real = mask.astype(bool)
        bound = tolerance * max(1.0, np.abs(expected[real]).max())
        np.testing.assert_allclose(actual[real], expected[real], rtol=0, atol=bound, err_msg=length)
        assert np.isfinite(actual).all()
        assert not actual[3].any(), "a row of padding alone must give zeros"
    everywhere = to_numpy(run(q, k, v, **more))
    given = to_numpy(run(q, k, v, mask=np.ones_like(mask), **more))
    np.testing.assert_allclose(everywhere, given, rtol=0, atol=bound)
    check_gradients(mechanism, definition, lengths[-1], causal, extras=extras)
    if causal:
        check_leakage(mechanism, lengths[-1], extras)


def check_gradients(mechanism, definition, length, causal, extras=None):
    """Gradients in query, key and value against those of the definition."""
    arrays = dict(zip("qkv", heads(length, seed=1), strict=True))
    mask = ragged_mask(length)
    more = extras(mask) if extras else {}
    weight = np.random.default_rng(2).standard_normal((*arrays["q"].shape[:3], VALUE_DIM))
    weight *= mask[..., None, None]

    def loss(q, k, v):
        out = mechanism(q, k, v, mask=mask, causal=causal, **more)
        return ops.sum(ops.multiply(out, weight.astype("float32")))

    def define(q, k, v):
        return (_define(definition, q, k, v, mask) * weight).sum()

    # float32: a derivative sums thousands of products.
    check_slopes(loss, define, arrays, tolerance=6e-4)


def check_leakage(mechanism, length, extras=None):
    """Changing the future must not move the past by a single bit."""
    mask = ragged_mask(length)[:2]
    more = extras(mask) if extras else {}
    q, k, v = (x[:2] for x in heads(length))
    run = compiled(lambda q, k, v: mechanism(q, k, v, mask=mask, causal=True, **more))
    before = to_numpy(run(*_tensors(q, k, v)))
    for cut in sorted({1, length // 2, length - 1}):
        future = [x.copy() for x in (q, k, v)]
        for x in future:
            x[:, cut:] = 9.0 * x[:, cut:] + 1.0
        after = to_numpy(run(*_tensors(*future)))
        assert np.array_equal(before[:, :cut], after[:, :cut]), f"the future leaks before {cut}"
        assert not np.array_equal(before[:, cut:], after[:, cut:])


def check_states(mechanism, length, chunks, tolerance=1e-5, extras=None):
    """Chunked and token by token with a state: what the parallel form gives, padded rows included.

    Args:
        mechanism: a `Mechanism` with a state.
        length: number of tokens.
        chunks: lengths of the chunks, which sum to `length`.
        tolerance: as in `check_mechanism`.
        extras: function of the mask -> further call arguments, int (b, t), cut with the chunks.
    """
    assert sum(chunks) == length
    # A row padded on the right does not go on, so it is not decoded.
    rows = [0, 1, 3]
    q, k, v = (x[rows] for x in heads(length))
    mask = ragged_mask(length)[rows]
    more = extras(mask) if extras else {}
    run = compiled_on_jax(lambda q, k, v, **call: mechanism(q, k, v, causal=True, **call))
    expected = to_numpy(run(q, k, v, mask=mask, **more))
    shapes = mechanism.state_shapes(HEADS, GROUPS, HEAD_DIM, VALUE_DIM)
    real = mask.astype(bool)
    for sizes in (chunks, (1,) * length):
        state = tuple(
            np.zeros((len(rows), *shape), dtype or "float32") for shape, dtype in shapes.values()
        )
        outs, start = [], 0
        for size in sizes:
            part = slice(start, start + size)
            cut = {name: value[:, part] for name, value in more.items()}
            parts = (x[:, part] for x in (q, k, v))
            out, state = run(*parts, mask=mask[:, part], state=state, **cut)
            assert [tuple(x.shape[1:]) for x in state] == [s for s, _ in shapes.values()]
            outs.append(to_numpy(out))
            start += size
        actual = np.concatenate(outs, axis=1)
        bound = tolerance * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(actual[real], expected[real], rtol=0, atol=bound)


def check_export(mechanism, tmp_path, causal=False, global_mask=False):
    """The file of an attention layer with the mechanism, in onnxruntime, at every length, padded.

    Args:
        mechanism: a template.
        tmp_path: a folder.
        causal: as in `MultiHeadAttention`.
        global_mask: the layer takes a `global_attention_mask`, nonzero for each row's first token.
    """
    model = attention_model(mechanism, causal, global_mask)
    run = compiled_on_jax(lambda **feeds: model(feeds))
    for target in ("portable", "ort"):
        path = tmp_path / f"{target}.onnx"
        export(model, path, target=target, verify=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for length in EXPORT_LENGTHS:
            # Two rows at the longest: the definition is checked elsewhere, memory is short.
            feeds = _layer_inputs(length, global_mask, rows=slice(None, 4 if length < 999 else 2))
            real = feeds["attention_mask"].astype(bool)
            actual = session.run(None, feeds)[0][real]
            expected = to_numpy(run(**feeds))[real]
            # float32 in another order of summation.
            bound = 5e-5 * max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(actual, expected, rtol=0, atol=bound, err_msg=str(length))


def attention_model(mechanism, causal=False, global_mask=False, width=11):
    """A functional model of one `MultiHeadAttention` with the mechanism, randomised."""
    inputs = {
        "x": keras.Input((None, width), name="x"),
        "attention_mask": keras.Input((None,), dtype="int32", name="attention_mask"),
    }
    call = {"attention_mask": inputs["attention_mask"]}
    if global_mask:
        name = "global_attention_mask"
        inputs[name] = call[name] = keras.Input((None,), dtype="int32", name=name)
    layer = MultiHeadAttention(
        HEADS,
        HEAD_DIM,
        GROUPS,
        value_dim=VALUE_DIM,
        causal=causal,
        attention=mechanism,
        name="attention",
    )
    return randomise(keras.Model(inputs, layer(inputs["x"], **call), name="own"), seed=4)


def _layer_inputs(length, global_mask, rows, width=11):
    x = np.random.default_rng(length).standard_normal((4, length, width)).astype("float32")
    feeds = {"x": x, "attention_mask": ragged_mask(length)}
    if global_mask:
        first = feeds["attention_mask"].argmax(1)
        feeds["global_attention_mask"] = np.eye(length, dtype="int32")[first]
    return {name: value[rows] for name, value in feeds.items()}


def _tensors(*arrays):
    return [ops.convert_to_tensor(x) for x in arrays]


def _define(definition, q, k, v, mask):
    q, k, v = (x.astype("float64") for x in (q, k, v))
    repeats = q.shape[2] // k.shape[2]
    out = definition(q, k.repeat(repeats, 2), v.repeat(repeats, 2), mask.astype(bool))
    return np.where(mask.any(1)[:, None, None, None], out, 0.0)
