import keras
import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from keras import ops
from transformers.models.deepseek_v2 import modeling_deepseek_v2 as v2
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3

from keras_seqattn.layers import DecoderBlock, LatentAttention, RotaryPositions
from keras_seqattn.onnx import export
from tests.helpers import check_layer, compiled, compiled_on_jax, randomise, to_numpy
from tests.layers.definition import check_definition
from tests.mechanisms import softmax_attention

# transformers wants a width that is a multiple of the heads, and even sizes.
HEADS, DIM, ROTARY, LATENT, VALUE, WIDTH, QUERY_LATENT = 3, 6, 4, 10, 7, 39, 9
# Float32 rounding through five projections; a wrong formula shows as 1e-2 or more.
TOLERANCE = 1e-5


def positions(**settings):
    return RotaryPositions(ROTARY, interleaved=True, max_position=5000, **settings)


def build(query_latent_dim=QUERY_LATENT, **settings):
    settings.setdefault("positions", positions())
    layer = LatentAttention(
        HEADS,
        DIM,
        ROTARY,
        LATENT,
        value_dim=VALUE,
        query_latent_dim=query_latent_dim,
        name="mixer",
        **settings,
    )
    layer.build((None, None, WIDTH))
    return randomise(layer, seed=1)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def left_padded(length):
    """int32 (2, t): a full row, and one padded on the left."""
    mask = np.ones((2, length), "int32")
    mask[1, : length // 3] = 0
    return mask


def assert_close(actual, expected, mask=True):
    real = np.broadcast_to(np.asarray(mask, bool), expected.shape[:2])
    bound = TOLERANCE * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(to_numpy(actual)[real], expected[real], rtol=0, atol=bound)


def reference(module, config, rope, layer):
    """The layer of transformers with the weights of ours, and its rotary angles."""
    theirs = getattr(module, f"{config.__class__.__name__.removesuffix('Config')}Attention")
    theirs = theirs(config, 0).eval()
    weights = {v.path.removeprefix("mixer/"): to_numpy(v.value) for v in layer.weights}
    names = {
        "latent/kernel": "kv_a_proj_with_mqa.weight",
        "latent/bias": "kv_a_proj_with_mqa.bias",
        "latent_norm/scale": "kv_a_layernorm.weight",
        "key_value": "kv_b_proj.weight",
        "output_dense/kernel": "o_proj.weight",
        "output_dense/bias": "o_proj.bias",
        "query_down/kernel": "q_a_proj.weight",
        "query_down/bias": "q_a_proj.bias",
        "query_norm/scale": "q_a_layernorm.weight",
        "query/kernel": "q_b_proj.weight" if layer.query_latent_dim else "q_proj.weight",
    }
    state = {}
    for ours, value in weights.items():
        matrix = value.reshape(len(value), -1).T if value.ndim > 1 else value
        state[names[ours]] = torch.tensor(matrix.copy())
    theirs.load_state_dict(state)
    return theirs, rope(config)


CONFIG = {
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "qk_nope_head_dim": DIM,
    "qk_rope_head_dim": ROTARY,
    "head_dim": ROTARY,
    "kv_lora_rank": LATENT,
    "v_head_dim": VALUE,
    "max_position_embeddings": 64,
    "attn_implementation": "eager",
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "mscale": 1.0,
    "mscale_all_dim": 0.7,
}


def _deepseek(version, **settings):
    config = getattr(transformers, f"Deepseek{version}Config")(**CONFIG, **settings)
    module = {"V2": v2, "V3": v3}[version]
    return module, config, getattr(module, f"Deepseek{version}RotaryEmbedding")


def _error(ours, module, config, rope):
    layer, x = ours, normal(2, 11, WIDTH)
    theirs, rope = reference(module, config, rope, layer)
    tensor = torch.tensor(x)
    angles = rope(tensor, torch.arange(11)[None])
    mask = torch.full((11, 11), -1e9).triu(1)[None, None]
    with torch.no_grad():
        expected = theirs(tensor, attention_mask=mask, position_embeddings=angles)[0].numpy()
    return np.abs(to_numpy(compiled_on_jax(layer)(x)) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(
    ("version", "query_latent_dim", "bias"),
    [("V2", None, False), ("V2", QUERY_LATENT, True), ("V3", QUERY_LATENT, False)],
)
def test_deepseek(version, query_latent_dim, bias):
    layer = build(query_latent_dim, use_bias=bias)
    parts = _deepseek(version, q_lora_rank=query_latent_dim, attention_bias=bias)
    assert _error(layer, *parts) < TOLERANCE


def test_deepseek_beyond_its_first_length():
    """YaRN, whose factor of the scores is part of the configuration, not of the layer."""
    parts = _deepseek("V3", q_lora_rank=QUERY_LATENT, rope_parameters=YARN | {"rope_theta": 1e4})
    stretch = 0.1 * YARN["mscale_all_dim"] * np.log(YARN["factor"]) + 1.0
    scale = float((DIM + ROTARY) ** -0.5 * stretch**2)
    assert _error(build(positions=positions(scaling=YARN), scale=scale), *parts) < TOLERANCE
    assert _error(build(positions=positions(scaling=YARN)), *parts) > 100 * TOLERANCE


def rotate(x):
    """Neighbours in (b, t, h, dr) as complex numbers, turned by their places."""
    rates = 10000.0 ** (-np.arange(0, ROTARY, 2) / ROTARY)
    angles = np.arange(x.shape[1])[:, None, None] * rates
    turned = (x[..., ::2] + 1j * x[..., 1::2]) * np.exp(1j * angles)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)


def define(x, mask, w):
    """The formula with the keys and values of each head written out, the norms' epsilon 0.1."""

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 0.1) * w[f"{name}_norm/scale"]

    query = norm(x @ w["query_down/kernel"], "query") @ w["query/kernel"]
    query = query.reshape(*x.shape[:2], HEADS, DIM + ROTARY)
    query = np.concatenate([query[..., :DIM], rotate(query[..., DIM:])], axis=-1)
    latent = x @ w["latent/kernel"]
    shared = rotate(latent[:, :, None, LATENT:]).repeat(HEADS, axis=2)
    both = np.einsum("btr,rhc->bthc", norm(latent[..., :LATENT], "latent"), w["key_value"])
    key = np.concatenate([both[..., :DIM], shared], axis=-1)
    allowed = np.tri(x.shape[1]) * mask[:, None, None]
    out = softmax_attention(query, key, both[..., DIM:], allowed)
    return out.reshape(*x.shape[:2], -1) @ w["output_dense/kernel"]


@pytest.mark.parametrize("absorbed", [False, True])
@pytest.mark.parametrize("length", [1, 11])
def test_definition(length, absorbed):
    layer, call = build(layer_norm_epsilon=0.1), {}
    if absorbed:
        shapes = layer.cache_shapes().values()
        call["cache"] = tuple(np.zeros((4, g, 0, size), "float32") for g, size in shapes)
    check_definition(layer, define, normal(4, length, WIDTH), TOLERANCE, **call)


@pytest.mark.parametrize("change", [{"positions": RotaryPositions(ROTARY)}, {"positions": None}])
def test_other_positions_do_not_pass(change):
    assert _error(build(**change), *_deepseek("V2", q_lora_rank=QUERY_LATENT)) > 100 * TOLERANCE


@pytest.mark.parametrize("slots", [None, 17], ids=["growing", "buffers"])
@pytest.mark.parametrize("given", [False, True], ids=["counted", "position ids"])
def test_absorbed_equals_written_out(slots, given):
    layer, x, mask = build(), normal(2, 11, WIDTH), left_padded(11)
    ids = np.maximum(mask.cumsum(1) - 1, 0).astype("int32")
    given = {"position_ids": ids} if given else {}
    expected = to_numpy(compiled_on_jax(layer)(x, attention_mask=mask, **given))
    shapes = layer.cache_shapes()
    assert shapes == {"key": (1, ROTARY), "value": (1, LATENT)}
    cache = tuple(np.zeros((2, g, slots or 0, size), "float32") for g, size in shapes.values())
    step, outs = compiled(lambda call: layer(**call)), []
    for start, end in ((0, 6), (6, 7), (7, 11)):
        known = np.zeros((2, slots or end), "int32")
        known[:, :end] = mask[:, :end]
        call = {"x": x[:, start:end], "attention_mask": known, "cache": cache}
        if given:
            call["position_ids"] = ids[:, start:end]
        if slots:
            call["cache_position"] = np.array([start], "int32")
        y, cache = step(keras.tree.map_structure(ops.convert_to_tensor, call))
        outs.append(to_numpy(y))
    assert_close(np.concatenate(outs, 1), expected, mask)
    assert cache[1].shape == (2, 1, slots or 11, LATENT)


def test_the_future_does_not_reach_the_past():
    run, x = compiled(build()), normal(2, 11, WIDTH)
    before = to_numpy(run(ops.convert_to_tensor(x)))
    x[:, 7:] += 1.0
    after = to_numpy(run(ops.convert_to_tensor(x)))
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert np.abs(before[:, 7:] - after[:, 7:]).max() > 1e-2


def test_contract(tmp_path):
    layer = LatentAttention(
        HEADS, DIM, ROTARY, LATENT, VALUE, QUERY_LATENT, positions(), use_bias=True, name="mixer"
    )
    inputs = {"x": normal(2, 6, WIDTH), "attention_mask": left_padded(8)}
    inputs["cache"] = (normal(2, 1, 2, ROTARY), normal(2, 1, 2, LATENT))
    # Products of six projections: bfloat16's 8 bits six times.
    check_layer(layer, inputs, tmp_path, half_tolerance=0.3)


def test_in_a_block():
    block = DecoderBlock(HEADS, DIM, 17, mixer=LatentAttention(HEADS, DIM, ROTARY, LATENT))
    x = normal(2, 7, WIDTH)
    block.build(x.shape)
    assert block.state_shapes() is None
    cache = tuple(np.zeros((2, 1, 0, size), "float32") for _, size in block.cache_shapes().values())
    run = compiled_on_jax(block)
    y, cache = run(x, cache=cache)
    assert_close(y, to_numpy(run(x)))
    assert [part.shape for part in cache] == [(2, 1, 7, ROTARY), (2, 1, 7, LATENT)]


@pytest.mark.parametrize("absorbed", [False, True])
def test_export(absorbed, tmp_path):
    layer = build()
    inputs = {
        "x": keras.Input((None, WIDTH), name="x"),
        "attention_mask": keras.Input((None,), dtype="int32", name="attention_mask"),
    }
    call, outputs = dict(inputs), {}
    if absorbed:
        names = [f"past_key_values.0.{name}" for name in layer.cache_shapes()]
        sizes = layer.cache_shapes().values()
        pasts = {
            n: keras.Input((1, None, d), name=n) for n, (_, d) in zip(names, sizes, strict=True)
        }
        outputs["y"], (outputs["key"], outputs["value"]) = layer(
            **call, cache=tuple(pasts.values())
        )
        inputs |= pasts
    else:
        outputs["y"] = layer(**call)
    model = keras.Model(inputs, outputs, name="own")
    lengths = (1, 17, 333, 4099)
    feeds = {n: {"x": normal(2, n, WIDTH), "attention_mask": left_padded(n)} for n in lengths}
    # One row at the longest: the scores are as large as its square.
    feeds[4099] = {name: array[1:] for name, array in feeds[4099].items()}
    expected = {n: to_numpy(compiled_on_jax(layer)(**feed)) for n, feed in feeds.items()}
    for target in ("portable", "ort"):
        path = tmp_path / f"{target}.onnx"
        export(model, path, target=target, verify=False)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for length, feed in feeds.items():
            mask, rows = feed["attention_mask"], len(feed["x"])
            # Absorbed, the last third of the tokens after the others.
            cuts = [(0, length - length // 3), (length - length // 3, length)]
            past = {
                n: np.zeros((rows, 1, 0, x.shape[3]), "float32")
                for n, x in inputs.items()
                if n.startswith("past")
            }
            outs = []
            for start, end in cuts if absorbed and length > 1 else [(0, length)]:
                call = {"x": feed["x"][:, start:end], "attention_mask": mask[:, :end]}
                y, *past_values = session.run(
                    ["y", *(("key", "value") if absorbed else ())], call | past
                )
                past = dict(zip(past, past_values, strict=True))
                outs.append(y)
            assert_close(np.concatenate(outs, 1), expected[length], mask)
