"""Families and a task of another program, exported, verified and run where there is no Keras."""

import numpy as np
import pytest

from keras_seqattn import models, runtime
from keras_seqattn.models import registry
from keras_seqattn.models.heads import HEADS
from keras_seqattn.onnx import export
from tests.helpers import randomise
from tests.models.outside import encoder, head, parallel_decoder, vision
from tests.models.reference import run

pytestmark = pytest.mark.backend_free

# (family, task) -> what its inputs are made of.
TOKENS = ("input_ids", "attention_mask")
CASES = {
    "decoder for classes": ("outside_parallel", "sequence_classification", TOKENS),
    "encoder": ("outside_distilbert", "embedding", TOKENS),
    "task": ("outside_distilbert", "sentence_embedding", TOKENS),
    "images": ("outside_vit", "image_classification", ("pixel_values",)),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_heads", {})
    for module in (encoder, parallel_decoder, vision):
        models.register(module.FAMILY)
    head.register({"outside_distilbert": "DistilBertForSentences"})
    yield
    del HEADS["sentence_embedding"]


def _inputs(names):
    random = np.random.default_rng(3)
    if names == TOKENS:
        mask = np.ones((3, 7), "int64")
        mask[1, 4:] = 0
        return {"input_ids": random.integers(0, 97, (3, 7)), "attention_mask": mask}
    return {"pixel_values": random.standard_normal((3, 3, 12, 12)).astype("float32")}


@pytest.mark.parametrize("target", ["portable", "ort"])
@pytest.mark.parametrize("name", CASES)
def test_without_a_cache(name, target, tmp_path):
    family, task, names = CASES[name]
    model = randomise(models.build(family, task), seed=3)
    report = export(model, tmp_path / "bundle", target=target)
    assert 0 < report.worst <= 1e-4
    bundle, inputs = runtime.load(tmp_path / "bundle"), _inputs(names)
    found = bundle.run(inputs)
    expected = run(model, inputs)
    assert set(found) == set(expected)
    for output, value in expected.items():
        scale = np.abs(value).max()
        if value.shape[:2] == (3, 7):
            keep = inputs["attention_mask"][..., None]
            value, found[output] = value * keep, found[output] * keep
        # Float32 rounding over two layers.
        np.testing.assert_allclose(found[output], value, rtol=0, atol=1e-4 * scale)
