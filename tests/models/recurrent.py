"""What the tests of both recurrent encoder-decoders share."""

import keras
import numpy as np

from keras_seqattn import models
from keras_seqattn.models.compiled import compiled
from tests.helpers import randomise, to_numpy

VOCABULARY = 37
# Float32 rounding, fed back through up to 29 steps; a wrong formula shows as 1e-2 or more.
TOLERANCE = 1e-5


def build(family, **settings):
    """A tiny model with weights that make mistakes visible."""
    model = models.build(family, vocabulary_size=VOCABULARY, **settings)
    return randomise(model)


def sample_inputs(length, target_length=7, seed=0):
    """Four rows: without padding, with padding on the right, on the left, and on both sides."""
    rng = np.random.default_rng(seed)
    mask = np.ones((4, length), "int32")
    if length > 4:
        mask[1, -3:] = mask[2, :2] = mask[3, :1] = mask[3, -2:] = 0
    draw = rng.integers(1, VOCABULARY, (4, length + target_length)).astype("int32")
    return {
        "input_ids": draw[:, :length] * mask,
        "attention_mask": mask,
        "decoder_input_ids": draw[:, length:],
    }


def runner(model):
    """A function from inputs to outputs, both dicts of NumPy arrays, compiled by the backend."""
    run = compiled(model)

    def call(inputs):
        tensors = {name: keras.ops.convert_to_tensor(x) for name, x in inputs.items()}
        return to_numpy(run({}, tensors))

    return call


def weights_of(model):
    """Weights by path, float64."""
    return {v.path: to_numpy(v.value).astype("float64") for v in model.trainable_variables}


def part(weights, path):
    """The weights under a path, by what follows it."""
    prefix = f"{path}/"
    return {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}


def expected_logits(row, weights, inputs):
    """The logits of a batch by `row(weights, source ids, target ids)`, which knows no padding."""
    real = [
        ids[mask == 1]
        for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
    ]
    targets = inputs["decoder_input_ids"]
    return np.stack([row(weights, *pair) for pair in zip(real, targets, strict=True)])


def error(actual, expected):
    """The largest difference, relative to the largest value."""
    return np.abs(actual - expected).max() / np.abs(expected).max()


def check_definition(model, row):
    """Source lengths 1, 5 and 29 with padding against the equations."""
    run, weights = runner(model), weights_of(model)
    for length in (1, 5, 29):
        inputs = sample_inputs(length)
        found = error(run(inputs)["logits"], expected_logits(row, weights, inputs))
        assert found < TOLERANCE, (length, found)


def check_mutations(model, row):
    """The definition must notice a change of a tenth in any one weight matrix or vector."""
    run, inputs = runner(model), sample_inputs(5)
    expected = expected_logits(row, weights_of(model), inputs)
    for variable in model.trainable_variables:
        value = to_numpy(variable.value)
        variable.assign(1.1 * value)
        assert error(run(inputs)["logits"], expected) > 10 * TOLERANCE, variable.path
        variable.assign(value)
    assert error(run(inputs)["logits"], expected) < TOLERANCE


def check_saving(model, directory):
    """The same logits, bit by bit, after both ways of saving."""
    inputs = sample_inputs(5)
    expected = runner(model)(inputs)["logits"]
    model.save(directory / "model.keras")
    models.save(model, directory / "saved")
    copies = (keras.saving.load_model(directory / "model.keras"), models.load(directory / "saved"))
    for copy in copies:
        assert (copy.family, copy.task) == (model.family, model.task)
        assert [v.path for v in copy.trainable_variables] == [
            v.path for v in model.trainable_variables
        ]
        np.testing.assert_array_equal(runner(copy)(inputs)["logits"], expected)


def check_training(family, **settings):
    """A few steps of fit on one batch lower the loss."""
    model = models.build(family, vocabulary_size=VOCABULARY, dropout=0.1, **settings)
    inputs = sample_inputs(5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), {"logits": loss})
    labels = {"logits": np.roll(inputs["decoder_input_ids"], -1, axis=1)}
    history = model.fit(inputs, labels, epochs=12, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < 0.95 * history[0]
