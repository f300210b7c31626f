"""Writing into buffers of fixed size: right, and the same file from every backend."""

import keras
import numpy as np
import onnxruntime
import pytest
from keras import ops

from keras_seqattn.onnx.bundle import write_onnx
from keras_seqattn.onnx.graph import build_graph
from keras_seqattn.ops.cache import cache_write
from tests.onnx import tiny
from tests.onnx.apply import Apply

HEADS, SLOTS, SIZE = 3, 11, 4
POSITIONS = (0, 4, 9)


def _cache(slots=SLOTS):
    return keras.Input((HEADS, slots, SIZE), name="cache")


def _new(length=2):
    return keras.Input((HEADS, length, SIZE), name="new")


def _position():
    return keras.Input(batch_shape=(1,), dtype="int32", name="position")


def _hub(cache, new, position):
    """As keras-hub's attention writes into its cache (b, 2, n, h, d)."""
    both = ops.stack([cache, cache], axis=1)
    key = ops.slice_update(both[:, 0], [0, 0, position[0], 0], new)
    value = ops.slice_update(both[:, 1], [0, 0, position[0], 0], new + 1.0)
    return ops.sum(ops.stack([key, value], axis=1), axis=1)


WRITES = {
    "static": (lambda c, n, p: ops.slice_update(c, [0, 0, 5, 0], n), [_cache, _new]),
    "static, the first": (lambda c, n, p: ops.slice_update(c, [0, 0, 0, 0], n), [_cache, _new]),
    "static, the last": (lambda c, n, p: ops.slice_update(c, [0, 0, 9, 0], n), [_cache, _new]),
    "dynamic": (lambda c, n, p: ops.slice_update(c, [0, 0, p[0], 0], n), [_cache, _new]),
    "a vector of starts": (
        lambda c, n, p: ops.slice_update(c, ops.stack([0 * p[0], 0 * p[0], p[0], 0 * p[0]]), n),
        [_cache, _new],
    ),
    "two axes": (
        lambda c, n, p: ops.slice_update(c, [0, 1, p[0], 0], n[:, :2]),
        [_cache, _new],
    ),
    "everything": (
        lambda c, n, p: ops.slice_update(c, [0, 0, 0, 0], n),
        [_cache, lambda: _new(SLOTS)],
    ),
    "a buffer of any length": (
        lambda c, n, p: ops.slice_update(c, [0, 0, p[0], 0], n),
        [lambda: _cache(None), _new],
    ),
    "any number of new ones": (
        lambda c, n, p: ops.slice_update(c, [0, 0, p[0], 0], n),
        [_cache, lambda: _new(None)],
    ),
    "our operation": (
        lambda c, n, p: cache_write(c, ops.transpose(n, (0, 2, 1, 3)), p),
        [lambda: _cache(None), lambda: _new(None)],
    ),
    "keras-hub": (_hub, [lambda: _cache(None), _new]),
}


def write_model(name):
    function, inputs = WRITES[name]
    tensors = [make() for make in (*inputs, _position)]
    keras.utils.clear_session()
    written = Apply(function, keras.KerasTensor(tensors[0].shape, tensors[0].dtype), name="write")
    return keras.Model(tensors, written(*tensors), name="writes")


def run(graph, feeds, tmp_path):
    """The outputs by name, for feeds of which the graph may lack some."""
    write_onnx(graph, tmp_path / "model.onnx", inline=True)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    types = {i.name: i.dtype.numpy() for i in graph.graph.inputs}
    given = {name: feeds[name].astype(dtype) for name, dtype in types.items()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, given), strict=True))


@pytest.mark.parametrize("name", WRITES)
def test_a_write(name, tmp_path):
    model = write_model(name)
    graph = build_graph(model)
    length = {"everything": SLOTS}.get(name, 2)
    for position in {min(position, SLOTS - length) for position in POSITIONS}:
        random = np.random.default_rng(position)
        cache = random.normal(size=(5, HEADS, SLOTS, SIZE)).astype("float32")
        new = random.normal(size=(5, HEADS, length, SIZE)).astype("float32")
        feeds = {"cache": cache, "new": new, "position": np.array([position])}
        (actual,) = run(graph, feeds, tmp_path).values()
        expected = model([cache, new, np.array([position], "int32")], training=False)
        np.testing.assert_allclose(actual, ops.convert_to_numpy(expected), rtol=1e-6)


def write_models():
    """Models that write into buffers, for tests of what all backends must do alike."""
    models = {f"write {index}": write_model(name) for index, name in enumerate(WRITES)}
    models["llama step"] = tiny.decoder("llama").step_model(static=True)
    models["t5 step"] = tiny.seq2seq("t5").step_model(static=True)
    return models


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_step_with_a_buffer_of_fixed_size(family, tmp_path):
    make = tiny.decoder if family in tiny.DECODERS else tiny.seq2seq
    step = make(family).step_model(static=True)
    graph = build_graph(step)
    random = np.random.default_rng(1)
    feeds = {name: _feed(name, tensor, random) for name, tensor in step.input.items()}
    expected = step(feeds, training=False)
    for name, array in run(graph, feeds, tmp_path).items():
        wanted = ops.convert_to_numpy(expected[name])
        np.testing.assert_allclose(array, wanted, rtol=1e-4, atol=1e-5, err_msg=name)


def _feed(name, tensor, random):
    sizes = {0: 2, 1: 1, 2: SLOTS}
    shape = [sizes[axis] if n is None else n for axis, n in enumerate(tensor.shape)]
    if "mask" in name:
        shape[-1] = SLOTS if tensor.shape[-1] is None else tensor.shape[-1]
        return np.ones(shape, tensor.dtype)
    if name == "cache_position":
        return np.array([SLOTS - 1], tensor.dtype)
    if "int" in tensor.dtype:
        return random.integers(1, 7, shape).astype(tensor.dtype)
    return random.normal(size=shape).astype(tensor.dtype)
