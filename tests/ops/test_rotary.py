import keras
import numpy as np
import pytest

from keras_seqattn.ops import rotary_embedding
from keras_seqattn.ops.rotary_frequencies import rotary_tables
from tests.helpers import to_numpy
from tests.ops import reference

B, T, H, D, POSITIONS = 2, 5, 3, 14, 23
DEFAULT = (("rope_type", "default"),)


def operands(rotary_dim, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((B, T, H, D)).astype("float32")
    cos, sin = rotary_tables(rotary_dim, 100.0, POSITIONS, DEFAULT)
    return x, cos, sin, rng.integers(0, POSITIONS, (B, T)).astype("int32")


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("rotary_dim", [14, 6, 2])
def test_formula(rotary_dim, interleaved):
    x, cos, sin, position_ids = operands(rotary_dim)
    rows = cos[position_ids], sin[position_ids]
    expected = reference.rotary(x, *rows, interleaved)
    by_table = rotary_embedding(x, cos, sin, position_ids, interleaved=interleaved)
    by_row = rotary_embedding(x, *rows, interleaved=interleaved)
    np.testing.assert_allclose(to_numpy(by_table), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(to_numpy(by_row), to_numpy(by_table))
    assert by_row.shape == x.shape
    np.testing.assert_array_equal(to_numpy(by_row)[..., rotary_dim:], x[..., rotary_dim:])


@pytest.mark.parametrize("interleaved", [False, True])
def test_matches_onnx(interleaved):
    """The reference implementation of the onnx package for RotaryEmbedding-23."""
    from onnx.reference.ops.op_rotary_embedding import RotaryEmbedding

    x, cos, sin, position_ids = operands(6)
    expected = RotaryEmbedding.eval(
        x.transpose(0, 2, 1, 3),
        cos,
        sin,
        position_ids,
        interleaved=interleaved,
        rotary_embedding_dim=6,
        num_heads=H,
    )
    out = to_numpy(rotary_embedding(x, cos, sin, position_ids, interleaved=interleaved))
    np.testing.assert_allclose(out, expected.transpose(0, 2, 1, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_only_distances_matter(interleaved):
    x, cos, sin, _ = operands(D)
    y = np.roll(x, 1, axis=0)

    def product(shift):
        position_ids = np.array([[0, 3, 4, 9, 11]] * B) + shift
        q, k = (
            to_numpy(rotary_embedding(a, cos, sin, position_ids, interleaved=interleaved))
            for a in (x, y)
        )
        return np.einsum("bthd,bshd->bhts", q, k)

    np.testing.assert_allclose(product(7), product(0), rtol=0, atol=1e-5)


@pytest.mark.backend_free
def test_tables_are_shared_and_fixed():
    first, again = (rotary_tables(D, 100.0, POSITIONS, DEFAULT) for _ in range(2))
    assert all(a is b for a, b in zip(first, again, strict=True))
    assert not first[0].flags.writeable
    assert rotary_tables(D, 99.0, POSITIONS, DEFAULT)[0] is not first[0]


@pytest.mark.backend_free
def test_symbolic_shape():
    x = keras.KerasTensor((None, None, H, D), "float16")
    _, cos, sin, _ = operands(6)
    out = rotary_embedding(x, cos, sin, keras.KerasTensor((None, None), "int32"))
    assert out.shape == (None, None, H, D) and out.dtype == "float16"
