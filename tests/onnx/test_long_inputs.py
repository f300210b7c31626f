"""Encoders whose attention does not grow with the square of the length, at lengths up to 4,099."""

import numpy as np
import onnxruntime
import pytest

from keras_seqattn import models
from keras_seqattn.onnx import build_graphs, export
from keras_seqattn.onnx.bundle import write_onnx
from keras_seqattn.onnx.inputs import InputGenerator
from tests.helpers import randomise
from tests.models.reference import run, sample_inputs
from tests.onnx import tiny

# The files are the same from every backend.
pytestmark = pytest.mark.backend_free

LENGTHS = (1, 17, 333, 4099)
# Positions behind those of padding.
LONGFORMER = tiny.LONGFORMER | {"max_position_embeddings": 4101}
MODELS = {
    "longformer": ("longformer", "masked_lm", LONGFORMER),
    "led": ("led", None, tiny.LED | {"max_encoder_position_embeddings": 4099}),
    "bigbird_pegasus": (
        "bigbird_pegasus",
        None,
        tiny.BART | tiny.BIG_BIRD | {"max_position_embeddings": 4099},
    ),
}


def _inputs(model, length):
    inputs = sample_inputs(model, batch=2, length=length, padding="left")
    inputs.pop("decoder_input_ids", None)
    if "global_attention_mask" in inputs:
        few = np.arange(length) % max(1, length // 3) == 0
        inputs["global_attention_mask"][:] = few & (few.cumsum() <= 3)
    return inputs


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("name", MODELS)
def test_every_length(name, target, tmp_path):
    family, task, settings = MODELS[name]
    model = randomise(models.build(family, task, **settings), seed=3)
    graph = next(iter(build_graphs(model, target).values()))
    write_onnx(graph, tmp_path / "model.onnx", inline=True)
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    part = model.encoder_model() if model.task == "seq2seq_lm" else model
    for length in LENGTHS:
        inputs = _inputs(model, length)
        found = session.run(None, {n: x.astype("int64") for n, x in inputs.items()})
        real = inputs["attention_mask"] == 1
        for output, expected in zip(found, run(part, inputs).values(), strict=True):
            bound = 1e-5 * np.abs(expected[real]).max()  # float32, summed in another order
            np.testing.assert_allclose(output[real], expected[real], rtol=0, atol=bound)


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_export_verifies_global_tokens(target, tmp_path):
    model = randomise(models.build("longformer", **tiny.LONGFORMER), seed=3)
    report = export(model, tmp_path / "model.onnx", target=target)
    assert 0 < report.worst <= 1e-4
    # What was compared has such tokens, on which the outputs depend.
    inputs = InputGenerator(model).inputs(3, 33, "right")
    assert (inputs["global_attention_mask"].sum(axis=1) == 3).all()
    none = inputs | {"global_attention_mask": 0 * inputs["global_attention_mask"]}
    name = "last_hidden_state"
    assert np.abs(run(model, inputs)[name] - run(model, none)[name]).max() > 1e-2
