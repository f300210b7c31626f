import keras
import numpy as np
import pytest

from keras_seqattn.errors import ConfigError
from keras_seqattn.layers import ALiBi, PositionEmbedding, RotaryPositions, SinusoidalPositions
from keras_seqattn.ops.rotary_frequencies import static_frequencies
from tests.helpers import check_layer, to_numpy

HEAD_DIM, MAX, ORIGINAL = 12, 61, 17
STATIC = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
    "yarn": {
        "rope_type": "yarn",
        "factor": 5.0,
        "original_max_position_embeddings": ORIGINAL,
        "beta_fast": 2.0,
        "beta_slow": 0.25,
    },
    "yarn_untruncated": {
        "rope_type": "yarn",
        "factor": 5.0,
        "original_max_position_embeddings": ORIGINAL,
        "truncate": False,
        "beta_fast": 2.0,
        "beta_slow": 0.25,
        "attention_factor": 0.7,
    },
    "yarn_mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        "mscale": 0.9,
        "mscale_all_dim": 0.4,
    },
    "yarn_plain": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
    },
}
DYNAMIC = {
    "dynamic": {"rope_type": "dynamic", "factor": 2.5},
    "longrope": {
        "rope_type": "longrope",
        "original_max_position_embeddings": ORIGINAL,
        "short_factor": [1.0, 1.1, 1.3, 1.7, 1.9, 2.3],
        "long_factor": [1.0, 2.0, 3.0, 5.0, 7.0, 11.0],
        "factor": 3.6,
    },
    "longrope_attention": {
        "rope_type": "longrope",
        "original_max_position_embeddings": ORIGINAL,
        "short_factor": [1.0, 1.1, 1.3, 1.7, 1.9, 2.3],
        "long_factor": [1.0, 2.0, 3.0, 5.0, 7.0, 11.0],
        "factor": 3.6,
        "attention_factor": 1.25,
    },
}


def transformers_angles(scaling, positions, base):
    """cos and sin (1, t, r / 2) of the reference implementation."""
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=3 * HEAD_DIM,
        num_attention_heads=3,
        head_dim=HEAD_DIM,
        max_position_embeddings=MAX,
        rope_parameters={**scaling, "rope_theta": base},
    )
    module = LlamaRotaryEmbedding(config)
    cos, sin = module(torch.zeros(1), torch.tensor(positions)[None])
    return [x.numpy()[..., : HEAD_DIM // 2] for x in (cos, sin)]


@pytest.mark.backend_free
@pytest.mark.parametrize("name", STATIC)
def test_tables_as_in_transformers(name):
    """Their angles are float32 products of up to 61 radians, so about 4e-6 off."""
    positions = RotaryPositions(HEAD_DIM, base=97.0, max_position=MAX, scaling=STATIC[name])
    expected = transformers_angles(STATIC[name], np.arange(MAX), 97.0)
    for table, angles in zip(positions.tables(), expected, strict=True):
        np.testing.assert_allclose(table, angles[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [5, ORIGINAL, ORIGINAL + 1, MAX, MAX + 12])
@pytest.mark.parametrize("name", DYNAMIC)
def test_angles_as_in_transformers(name, length):
    """Float32 powers of up to 73 radians on both sides."""
    positions = RotaryPositions(HEAD_DIM, base=97.0, max_position=MAX, scaling=DYNAMIC[name])
    rows = np.arange(length)[None].astype("int32")
    expected = transformers_angles(DYNAMIC[name], rows[0], 97.0)
    for own, angles in zip(positions.angles(rows), expected, strict=True):
        np.testing.assert_allclose(to_numpy(own), angles, rtol=0, atol=4e-5)


@pytest.mark.parametrize("name", STATIC)
def test_angles_far_beyond_the_tables(name):
    """Three float32 products of factors of at most the attention factor."""
    settings = {"base": 97.0, "max_position": MAX, "scaling": STATIC[name]}
    positions = RotaryPositions(HEAD_DIM, **settings, unbounded=True)
    rows = np.array([[0, 1, 255, 256, 65535], [65536, 70001, 1_234_567, 2**23, 2**24 - 1]], "int32")
    frequencies, factor = static_frequencies(HEAD_DIM, 97.0, MAX, positions.scaling)
    angles = rows[..., None] * frequencies
    for own, exact in zip(positions.angles(rows), (np.cos(angles), np.sin(angles)), strict=True):
        np.testing.assert_allclose(to_numpy(own), factor * exact, rtol=0, atol=1e-6)
    x = np.random.default_rng(0).standard_normal((2, 5, 3, HEAD_DIM)).astype("float32")
    rows = np.minimum(rows, MAX - 1)
    near = RotaryPositions(HEAD_DIM, **settings).rotate(x, x, rows)[0]
    unbounded = RotaryPositions.from_config(positions.get_config())
    np.testing.assert_allclose(
        to_numpy(unbounded.rotate(x, x, rows)[0]), to_numpy(near), rtol=0, atol=1e-5
    )


@pytest.mark.backend_free
def test_lengths_that_count_have_an_end():
    with pytest.raises(ConfigError, match="depends on the length"):
        RotaryPositions(HEAD_DIM, scaling=DYNAMIC["dynamic"], unbounded=True)


@pytest.mark.parametrize("name", ["default", "yarn", "dynamic", "longrope"])
@pytest.mark.parametrize("length", [ORIGINAL, 31])
def test_rotation_as_in_transformers(name, length):
    import torch
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    scaling = {**STATIC, **DYNAMIC}[name]
    rng = np.random.default_rng(0)
    query = rng.standard_normal((2, length, 5, HEAD_DIM)).astype("float32")
    key = rng.standard_normal((2, length, 3, HEAD_DIM)).astype("float32")
    positions = RotaryPositions(HEAD_DIM, base=97.0, max_position=MAX, scaling=scaling)
    rows = np.tile(np.arange(length, dtype="int32"), (2, 1))
    cos, sin = (
        torch.tensor(np.concatenate([x, x], axis=-1))
        for x in transformers_angles(scaling, np.arange(length), 97.0)
    )
    expected = apply_rotary_pos_emb(
        *(torch.tensor(x.transpose(0, 2, 1, 3)) for x in (query, key)), cos, sin
    )
    for own, theirs in zip(positions.rotate(query, key, rows), expected, strict=True):
        theirs = theirs.numpy().transpose(0, 2, 1, 3)
        np.testing.assert_allclose(to_numpy(own), theirs, rtol=0, atol=6e-5)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", [*STATIC, *DYNAMIC])
def test_object_round_trip(name):
    positions = RotaryPositions(8, 5e5, 0.5, True, MAX, {**STATIC, **DYNAMIC}[name])
    config = keras.saving.serialize_keras_object(positions)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == positions.get_config()
    assert again.rotary_dim == 4
    if name in STATIC:
        assert again.tables()[0] is positions.tables()[0]


@pytest.mark.backend_free
def test_unknown_scaling_is_refused():
    with pytest.raises(ConfigError, match="'mrope'"):
        RotaryPositions(8, scaling={"rope_type": "mrope"})


@pytest.mark.backend_free
def test_alibi_round_trip():
    config = keras.saving.serialize_keras_object(ALiBi(7))
    assert keras.saving.deserialize_keras_object(config).num_heads == 7


IDS = np.array([[4, 0, 2], [1, 1, 12]], "int32")


def test_learned_positions(tmp_path):
    layer = PositionEmbedding(13, 5)
    out = check_layer(
        layer, {"inputs": np.zeros((2, 3, 7), "float32"), "position_ids": IDS}, tmp_path
    )
    table = to_numpy(layer.embeddings.value)
    np.testing.assert_array_equal(out, table[IDS])
    np.testing.assert_array_equal(to_numpy(layer(np.zeros((2, 3), "int32"))), table[None, :3])


@pytest.mark.parametrize("interleaved", [True, False])
def test_sinusoids(interleaved, tmp_path):
    layer = SinusoidalPositions(6, interleaved=interleaved, max_sequence_length=13)
    out = check_layer(
        layer, {"inputs": np.zeros((2, 3, 7), "float32"), "position_ids": IDS}, tmp_path
    )
    for b, t, i in np.ndindex(2, 3, 3):
        angle = IDS[b, t] / 10000 ** (2 * i / 6)
        sine, cosine = (2 * i, 2 * i + 1) if interleaved else (i, i + 3)
        np.testing.assert_allclose(
            out[b, t, [sine, cosine]], [np.sin(angle), np.cos(angle)], atol=1e-6
        )
