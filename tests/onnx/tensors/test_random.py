"""Random numbers that a layer draws at inference. The draws are compared by their moments."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from keras import ops, random

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import build_graph
from keras_seqattn.onnx.lower.random import RANDOM
from tests.onnx.apply import Apply

# Of this many draws, a mean is wrong by less than 5 deviations: 5 / sqrt(30000) = 0.029.
ROWS = 3000
CLOSE = 0.03


class Draw(keras.layers.Layer):
    """A dict of random tensors of 10 columns, with as many rows as the input has."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = random.SeedGenerator(3)

    def call(self, x):
        shape, seed = (ops.shape(x)[0], 10), self.seeds
        steps = ops.broadcast_to(ops.expand_dims(ops.arange(ops.shape(x)[0]), 1), shape)
        return {
            "normal": random.normal(shape, 1.0, 2.0, seed=seed),
            "again": random.normal(shape, 1.0, 2.0, seed=seed),
            "uniform": random.uniform(shape, -1.0, 3.0, seed=seed),
            "truncated": random.truncated_normal(shape, 0.5, 2.0, seed=seed),
            "randint": random.randint(shape, -2, 5, seed=seed),
            "categorical": random.categorical(x, 10, seed=seed),
            "dropout": random.dropout(ops.ones(shape), 0.25, seed=seed),
            "rows": random.dropout(ops.ones(shape), 0.5, noise_shape=(None, 1), seed=seed),
            "shuffle": random.shuffle(steps, seed=seed),
        }

    def compute_output_spec(self, x):
        names = "normal again uniform truncated randint categorical dropout rows shuffle".split()
        return {name: keras.KerasTensor((x.shape[0], 10)) for name in names}


def _session(model):
    graph = build_graph(model)
    return onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString()), graph


def _run(session, x):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"x": x}), strict=True))


def test_moments():
    x = keras.Input((3,), name="x")
    layer = Draw(name="draw")
    model = keras.Model(x, layer(x))
    before = ops.convert_to_numpy(layer.seeds.state).tolist()
    session, graph = _session(model)
    assert ops.convert_to_numpy(layer.seeds.state).tolist() == before
    assert set(graph.metadata_props[RANDOM].split()) >= {"normal", "randint", "shuffle"}
    logits = np.log(np.tile(np.array([[0.2, 0.5, 0.3]], "float32"), (ROWS, 1))) + 7
    drawn, later = _run(session, logits), _run(session, logits)
    for name in ("normal", "again", "uniform", "truncated", "shuffle", "dropout"):
        assert not np.array_equal(drawn[name], later[name]), name
    assert abs(np.corrcoef(drawn["normal"].ravel(), drawn["again"].ravel())[0, 1]) < CLOSE
    for name, mean, deviation in (
        ("normal", 1, 2),
        ("uniform", 1, 4 / np.sqrt(12)),
        ("truncated", 0.5, 2 * 0.8796),
        ("randint", 1, 2),
        ("categorical", 1.1, 0.7),
        ("dropout", 1, np.sqrt(1 / 3)),
    ):
        assert abs(drawn[name].mean() - mean) < CLOSE * deviation, name
        assert abs(drawn[name].std() - deviation) < CLOSE * deviation, name
    assert np.abs(drawn["truncated"] - 0.5).max() <= 4
    assert set(np.unique(drawn["randint"])) == set(range(-2, 5))
    assert drawn["uniform"].min() >= -1 and drawn["uniform"].max() < 3
    assert (drawn["rows"] == drawn["rows"][:, :1]).all() and set(np.unique(drawn["rows"])) == {0, 2}
    assert sorted(drawn["shuffle"][:, 0]) == list(range(ROWS))


def test_a_whole_number_as_seed_always_gives_the_same_draw():
    x = keras.Input((7,), name="x")
    noisy = Apply(lambda x: x + random.normal((7,), seed=11), keras.KerasTensor((None, 7)))
    model = keras.Model(x, noisy(x))
    session, graph = _session(model)
    zeros = np.zeros((2, 7), "float32")
    (actual,) = _run(session, zeros).values()
    np.testing.assert_allclose(actual, model.predict(zeros, verbose=0), rtol=1e-6)
    assert RANDOM not in graph.metadata_props


def test_distributions_without_a_form_are_refused():
    x = keras.Input((7,))
    seeds = random.SeedGenerator(1)
    spec = keras.KerasTensor((None, 7))
    noisy = Apply(lambda x: x + random.gamma((7,), 2.0, seed=seeds), spec, name="noisy")
    with pytest.raises(ExportError, match="noisy: keras.random.gamma has no ONNX form"):
        build_graph(keras.Model(x, noisy(x)))
