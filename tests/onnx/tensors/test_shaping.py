"""Joining, cutting, repeating, padding, filling tensors; shapes that are computed."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from tests.onnx.apply import Apply
from tests.onnx.tensors.many import check_all

RANDOM = np.random.default_rng(12)
BACKEND = keras.backend.backend()


def inputs(b, t):
    """x (b, t, 7), a vector (b,), ids (b, 3) in [0, 4), one number."""
    return [
        RANDOM.normal(size=(b, t, 7)).astype("float32"),
        RANDOM.normal(size=(b,)).astype("float32"),
        RANDOM.integers(0, 4, (b, 3)).astype("int32"),
        np.array(2, "int32"),
    ]


SHAPES = [(None, None, 7), (None,), (None, 3), ()]
SMALL, LARGE = inputs(5, 4), inputs(6, 9)

JOINS = {
    "mixed": lambda x, v, i, n: ops.concatenate([x[:, :3, 0], ops.cast(i, "float32")], axis=-1),
    "append": lambda x, v, i, n: (ops.append(x, x, axis=1), ops.append(x, v), ops.append(i, i)),
    "hstack": lambda x, v, i, n: (ops.hstack([x, x]), ops.hstack([v, v])),
    "vstack": lambda x, v, i, n: (ops.vstack([x, x]), ops.vstack([x[0], x[0]])),
    "dstack": lambda x, v, i, n: (ops.dstack([x, x]), ops.dstack([x[0], x[0]])),
    "stack": lambda x, v, i, n: (ops.stack([v, v * 2], axis=-1), ops.stack([x, x, x], axis=1)),
    "unstack": lambda x, v, i, n: (ops.unstack(i, axis=1), ops.unstack(i, axis=-1)),
}
SPLITS = {
    "hsplit": lambda x, v, i, n: (ops.hsplit(i, 3), ops.hsplit(v[:4], 2), ops.hsplit(x, [1, 3])),
    "vsplit": lambda x, v, i, n: ops.vsplit(x[:, 0], [1]),
    "dsplit": lambda x, v, i, n: (ops.dsplit(x, 7), ops.dsplit(x, [2, 5])),
    "array_split": lambda x, v, i, n: (ops.array_split(x, 3, axis=-1), ops.array_split(x, 2, 1)),
    "split_dynamic": lambda x, v, i, n: ops.split(x[:, :4], 2, axis=1),
    "split_edges": lambda x, v, i, n: ops.split(x, [1, 3], axis=1),
}
MOVES = {
    "roll": lambda x, v, i, n: (ops.roll(x, 2), ops.roll(x, -1, axis=1), ops.roll(x, 9, axis=-1)),
    "roll_two": lambda x, v, i, n: (ops.roll(x, (1, -2), axis=(0, 2)), ops.roll(v, 12, axis=0)),
    "fliplr": lambda x, v, i, n: (ops.fliplr(x), ops.flipud(x), ops.flip(x, axis=(0, -1))),
    "tile": lambda x, v, i, n: (ops.tile(v, (2, 3)), ops.tile(x, 2), ops.tile(x, (2, 1, 1, 3))),
    "tile_size": lambda x, v, i, n: ops.tile(v, (ops.shape(x)[0], 1)),
    "repeat": lambda x, v, i, n: (
        ops.repeat(x, 2, axis=-2),
        ops.repeat(i, np.array([2, 0, 3]), axis=1),
    ),
    "repeat_flat": lambda x, v, i, n: (ops.repeat(x, 3), ops.repeat(i, np.array([2]), axis=0)),
    "repeat_number": lambda x, v, i, n: ops.repeat(v, n, axis=0),
    "swap": lambda x, v, i, n: (ops.swapaxes(x, -1, 0), ops.moveaxis(x, -1, 0), ops.ravel(x)),
    "expand": lambda x, v, i, n: (ops.expand_dims(x, (0, -1)), ops.squeeze(x[:, :1, :1], (1, 2))),
    "meshgrid": lambda x, v, i, n: (ops.meshgrid(v, v[:3]), ops.meshgrid(v, v, v, indexing="ij")),
    "rearrange": lambda x, v, i, n: ops.rearrange(x, "b t d -> t (b d)"),
    "rearrange_parts": lambda x, v, i, n: ops.rearrange(x[..., :6], "b t (h d) -> (b h) t d", h=2),
}
COUNTS = {"repeat_counts": lambda x, v, i, n: ops.repeat(i[0], i[0] + 1, axis=0)}
PADS = {
    "pad": lambda x, v, i, n: (ops.pad(v, 2), ops.pad(x, ((0, 1), (2, 0), (1, 1)))),
    "pad_value": lambda x, v, i, n: ops.pad(i, ((0, 0), (1, 2)), constant_values=-5),
    "reflect": lambda x, v, i, n: ops.pad(x, ((0, 0), (2, 3), (1, 1)), mode="reflect"),
    "symmetric": lambda x, v, i, n: ops.pad(x, ((0, 0), (2, 3), (1, 1)), mode="symmetric"),
    "pad_number": lambda x, v, i, n: ops.pad(x, ((0, 0), (0, 0), (0, ops.shape(x)[1]))),
}
FILLS = {
    "arange": lambda x, v, i, n: (
        ops.arange(ops.shape(x)[1]),
        ops.arange(1, 2 * ops.shape(x)[1], 3),
        ops.arange(ops.shape(x)[1], 0, -2),
        ops.arange(n),
        ops.arange(ops.shape(x)[1], dtype="float32"),
        ops.arange(0.5, 3.0, 0.25) + v[0],
    ),
    "arange_float": lambda x, v, i, n: ops.arange(0.0, ops.cast(n, "float32"), 0.3),
    "eye": lambda x, v, i, n: (
        ops.eye(ops.shape(x)[1]),
        ops.eye(ops.shape(x)[1], 4, k=1),
        ops.eye(4, ops.shape(x)[1], k=-1, dtype="int32"),
        ops.identity(ops.shape(x)[1], dtype="float32"),
        ops.tri(ops.shape(x)[1], 4, 1),
        ops.tri(3, ops.shape(x)[1], -1, "bool"),
    ),
    "zeros": lambda x, v, i, n: (
        ops.zeros((ops.shape(x)[1], 2), "int32"),
        ops.ones(ops.shape(x)[:2], "bool"),
        ops.full((2, ops.shape(x)[1]), v[0]),
        ops.full((2, 3), v[0], "int32"),
        ops.full_like(x, v[0]),
        ops.zeros_like(i),
        ops.ones_like(i, dtype="float32"),
        ops.zeros_like(ops.empty_like(x)),
        ops.zeros((n, 2)),
    ),
    "diag": lambda x, v, i, n: (ops.diag(v), ops.diag(v, 2), ops.diag(v, -1), ops.diag(i[0], 1)),
    "diag_of": lambda x, v, i, n: (ops.diag(x[0]), ops.diag(x[0], 3), ops.diag(x[0], -2)),
    "diagflat": lambda x, v, i, n: ops.diagflat(i[:1], 1),
    "diagonal": lambda x, v, i, n: (
        ops.diagonal(x),
        ops.diagonal(x, 1, 1, 2),
        ops.diagonal(x, -1, axis1=2, axis2=1),
        ops.diagonal(x, 2, axis1=-1, axis2=0),
        ops.diagonal(ops.reshape(x[..., :6], (-1, 2, 3)), 1, axis1=1, axis2=2),
    ),
    "array": lambda x, v, i, n: (ops.array(x), ops.convert_to_tensor(v, "int32"), ops.view(x)),
    "list": lambda x, v, i, n: ops.convert_to_tensor([v[0], v[1]]),
    "broadcast": lambda x, v, i, n: ops.broadcast_to(np.ones((1, 7), "int32"), ops.shape(x)),
    "one_hot": lambda x, v, i, n: (ops.one_hot(i, 4), ops.one_hot(i, 5, axis=1, dtype="int32")),
}


@pytest.mark.parametrize("target", ["portable"] if BACKEND == "jax" else ["portable", "ort"])
def test_shapes(target):
    cases = JOINS | SPLITS | MOVES | COUNTS | PADS | FILLS
    check_all(cases, SHAPES, SMALL, LARGE, target=target)


# The modes that are not on every backend.
MODES = {
    "torch": {"replicate", "circular"},
    "tensorflow": set(),
    "jax": {"edge", "wrap"},
}


@pytest.mark.parametrize("mode", sorted(MODES[BACKEND]))
def test_other_modes_of_padding(mode):
    function = {mode: lambda x, v, i, n: ops.pad(x, ((0, 0), (2, 3), (1, 1)), mode=mode)}
    check_all(function, SHAPES, SMALL)


def test_padding_that_onnx_does_not_have_is_refused():
    with pytest.raises(ExportError, match="apply: ops.pad with mode 'mean'.*ops.concatenate"):
        _refused(lambda x: ops.pad(x, ((0, 0), (1, 1)), mode="mean"))


def test_bits_read_as_another_type_are_refused():
    with pytest.raises(ExportError, match="ops.view of float32 as int32.*ops.cast"):
        _refused(lambda x: ops.view(x, "int32"))


def _refused(function):
    x = keras.Input((7,))
    spec = keras.KerasTensor((None, 7))
    build_graph(keras.Model(x, Apply(function, spec, name="apply")(x)))
