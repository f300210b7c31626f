"""Families and a task of another program, exported, verified and run where there is no Keras."""

import keras
import numpy as np
import pytest

import keras_seqattn
from keras_seqattn import models, runtime
from keras_seqattn.errors import InputError
from keras_seqattn.models import registry
from keras_seqattn.models.embedders import Source
from keras_seqattn.models.heads import HEADS
from keras_seqattn.onnx import export
from tests.helpers import randomise
from tests.models.outside import encoder, head, parallel_decoder, speech, vision
from tests.models.reference import run
from tests.onnx.apply import Apply

pytestmark = pytest.mark.backend_free

# (family, task) -> what its inputs are made of.
TOKENS = ("input_ids", "attention_mask")
CASES = {
    "decoder for classes": ("outside_parallel", "sequence_classification", TOKENS),
    "encoder": ("outside_distilbert", "embedding", TOKENS),
    "task": ("outside_distilbert", "sentence_embedding", TOKENS),
    "images": ("outside_vit", "image_classification", ("pixel_values",)),
    "vectors of images": ("outside_vit", "embedding", ("pixel_values",)),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(registry, "_heads", {})
    for module in (encoder, parallel_decoder, speech, vision):
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


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_the_decoder_generates(target, tmp_path):
    model = randomise(models.build("outside_parallel", "causal_lm"), seed=3)
    report = export(model, tmp_path / "bundle", target=target)
    assert 0 < report.worst <= 1e-4
    assert any("cached steps" in case.name for case in report.cases)
    bundle = runtime.load(tmp_path / "bundle")
    prompts = [[5, 9, 2], [17], [4, 4, 4, 4, 90]]
    for settings in ({}, {"num_beams": 3}):
        found = bundle.generate(prompts, max_new_tokens=7, **settings)
        assert found == keras_seqattn.generate(model, prompts, max_new_tokens=7, **settings)


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_the_encoder_decoder_of_sound_generates(target, tmp_path):
    model = randomise(models.build("outside_speech"), seed=3)
    report = export(model, tmp_path / "bundle", target=target)
    assert 0 < report.worst <= 1e-4
    assert "two tokens from features" in report.rehearsed
    bundle = runtime.load(tmp_path / "bundle", check=True)
    features = np.random.default_rng(3).standard_normal((3, 13, 11)).astype("float32")
    mask = (np.arange(13) < [[13], [1], [7]]).astype("int64")
    for settings in ({}, {"num_beams": 3}):
        found = bundle.generate(features, mask, max_new_tokens=7, **settings)
        wanted = keras_seqattn.generate(model, features, mask, max_new_tokens=7, **settings)
        np.testing.assert_array_equal(found, wanted)
    # What the mask hides changes nothing, and what it shows does.
    hidden = np.where(mask[..., None], features, 1e3).astype("float32")
    greedy = bundle.generate(features, mask, max_new_tokens=7)
    np.testing.assert_array_equal(bundle.generate(hidden, mask, max_new_tokens=7), greedy)
    alone = bundle.generate(features[2, :7], max_new_tokens=7)
    np.testing.assert_array_equal(alone, greedy[2][: len(alone)])


@pytest.mark.backend_free
def test_the_mask_of_a_source_of_fixed_length_has_this_length():
    source = Source("input_features", (13, 11), lambda name: keras.layers.Dense(5, name=name))
    assert [port.axes for port in source.ports()] == [("batch_size", 13, 11), ("batch_size", 13)]


def neighbours(settings, initializer):
    """A source without a mask, whose layer makes each vector of a moment and of the next one."""

    def mixed(x):
        return x + keras.ops.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0)), constant_values=1.0)

    def layer(name):
        project = keras.layers.Dense(settings["d_model"], name="project")
        x = keras.Input((None, settings["num_mel_bins"]))
        return keras.Model(x, project(Apply(mixed, keras.KerasTensor(x.shape))(x)), name=name)

    return Source("input_features", (None, settings["num_mel_bins"]), layer, masked=False)


@pytest.mark.parametrize("target", ["portable", "ort"])
def test_features_without_a_mask_are_not_padded(target, tmp_path):
    family = speech.family("outside_neighbours", neighbours)
    model = randomise(models.build(models.register(family).model_type), seed=3)
    report = export(model, tmp_path / "bundle", target=target)
    assert 0 < report.worst <= 1e-4
    features = np.random.default_rng(3).standard_normal((5, 13, 11)).astype("float32")
    targets = np.full((5, 1), 2)
    for _ in range(7):
        inputs = {"input_features": features, "decoder_input_ids": targets}
        best = run(model, inputs)["logits"][:, -1:].argmax(-1)
        targets = np.concatenate([targets, best], axis=1)
    bundle = runtime.load(tmp_path / "bundle")
    settings = {"max_new_tokens": 7, "eos_token_id": []}
    found = bundle.generate(features, **settings)
    np.testing.assert_array_equal(found, targets[:, 1:])
    found = keras_seqattn.generate(model, features, **settings)
    np.testing.assert_array_equal(found, targets[:, 1:])


@pytest.mark.parametrize(
    "features, mask, settings, message",
    [
        ("a text", None, {}, "reads features"),
        ([[1, 2]], None, {}, r"must be numbers \(b, t, 11\)"),
        (np.zeros((2, 3, 10)), None, {}, r"must be numbers \(b, t, 11\), not float64 \(2, 3, 10\)"),
        (np.zeros((2, 0, 11)), None, {}, "at least one row"),
        (np.full((2, 3, 11), np.nan), None, {}, "finite"),
        (np.zeros((2, 3, 11)), np.ones((2, 4), int), {}, "but the features are"),
        (np.zeros((1, 3, 11)), np.array([[0, 1, 1]]), {}, "padded on the right"),
        (np.zeros((1, 65, 11)), None, {}, "the model takes 64|64 positions"),
        (np.zeros((1, 3, 11)), None, {"encoder_no_repeat_ngram_size": 2}, "source of tokens"),
    ],
)
def test_features_that_do_not_fit_are_refused(features, mask, settings, message, tmp_path):
    model = models.build("outside_speech")
    export(model, tmp_path / "bundle", verify=False)
    bundle = runtime.load(tmp_path / "bundle")
    for generate in (bundle.generate, lambda *a, **k: keras_seqattn.generate(model, *a, **k)):
        with pytest.raises(InputError, match=message):
            generate(features, mask, max_new_tokens=2, **settings)
