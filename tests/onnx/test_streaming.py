"""Exported decoders with states of fixed size: the graph, its proof, and generating with it."""

import json

import numpy as np
import onnx_ir as ir
import pytest

import keras_seqattn
from keras_seqattn import runtime
from keras_seqattn.layers import GatedLinearAttention, LatentAttention, RotaryPositions, StateSpace
from keras_seqattn.layers.mechanisms import Hierarchical, Linearized, Local
from keras_seqattn.onnx import export
from keras_seqattn.onnx.comparison import Comparison
from keras_seqattn.onnx.precisions import get_precision
from keras_seqattn.runtime.session import create_session
from keras_seqattn.runtime.values import empty_past
from tests.models import streaming
from tests.onnx import tiny

# The files are the same from every backend; those of families with states are compared on each.
pytestmark = pytest.mark.backend_free

LAYERS = {"streaming": streaming.STREAMING, "hybrid": streaming.HYBRID}


@pytest.fixture(scope="module", params=["ort", "portable"])
def target(request):
    return request.param


@pytest.fixture(scope="module", params=LAYERS)
def exported(request, target, tmp_path_factory):
    """(model, folder, report)."""
    folder = tmp_path_factory.mktemp("bundle") / request.param
    model = streaming.decoder(LAYERS[request.param])
    return model, folder, export(model, folder, target=target)


def test_the_bundle_is_proven(exported, target):
    model, folder, report = exported
    names = " | ".join(case.name for case in report.cases)
    for part in ("length 1,", "left padding", "right padding", "20 cached steps", "20 greedy"):
        assert part in names
    assert 0 < report.worst <= 1e-4
    streams = len(model.step_model().input) == 7
    graph = ir.load(folder / "model.onnx").graph
    shapes = {i.name: [str(n) for n in i.shape] for i in graph.inputs}
    length = "sequence_length" if streams else "total_sequence_length"
    assert shapes["attention_mask"] == ["batch_size", length]
    assert shapes["past_states.0.sum"] == ["batch_size", "22"]
    assert ("past_states.length" in shapes) == streams
    # onnxruntime-genai knows keys and values only.
    assert not (folder / "genai_config.json").exists()
    properties = json.loads((folder / "parity.json").read_text())
    in_place = not streams and target == "ort"
    assert (properties.get("shared_cache") == "true") == in_place


@pytest.mark.parametrize(
    "settings", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 3}], ids=str
)
def test_generated_tokens_equal_keras(exported, settings):
    model, folder, _ = exported
    bundle = runtime.load(folder, threads=1)
    rows = [[7, 11, 60, 9, 23], [42]]
    wanted = keras_seqattn.generate(model, rows, max_new_tokens=9, **settings)
    assert bundle.generate(rows, max_new_tokens=9, **settings) == wanted
    if "num_beams" not in settings:
        streamed = list(bundle.stream(rows[0], max_new_tokens=9, **settings))
        assert streamed == keras_seqattn.generate(model, rows[0], max_new_tokens=9, **settings)


def test_long_prompts_are_read_in_pieces(exported):
    """Streaming graphs read 1,024 tokens at a time; what follows is as if they read all at once."""
    _, folder, _ = exported
    bundle = runtime.load(folder, threads=1)
    pasts = bundle.session.ports.pasts
    ids = np.random.default_rng(5).integers(1, streaming.VOCABULARY, (1, 1030))

    def at_once(mask):
        feeds = {"input_ids": ids, "attention_mask": mask}
        feeds |= {port.name: empty_past(port, 1) for port in pasts}
        return bundle.run(feeds)["logits"][:, -1]

    # Few tokens behind the cut, so that the sums still hold much of those before it.
    mask = (np.arange(1030) >= 1001).astype("int64")[None]
    logits = at_once(mask)
    # float32, summed in another order.
    bound = 1e-4 * np.abs(logits).max()
    driver = bundle._make_decoder()
    driver.start(1, 1030)
    assert np.abs(driver(ids, mask) - logits).max() < bound
    forgotten = at_once(mask * (np.arange(1030) >= 1024))
    assert np.abs(forgotten - logits).max() > 100 * bound


STEPPED = {
    "local": {"attention": Local(3, dilation=2)},
    "linear": {"attention": Linearized()},
    "hierarchical": {"attention": Hierarchical(4, 2)},
    # At the default temperature the decay is so slow that it hardly counts in 27 tokens.
    "gated_linear": {
        "mixer": GatedLinearAttention(3, 5, value_dim=7, gate_temperature=2.0, chunk_size=4)
    },
    "state_space": {"mixer": StateSpace(6, 5, state_dim=7, num_groups=2, chunk_size=4)},
    "latent": {"mixer": LatentAttention(3, 6, 4, 10, positions=RotaryPositions(4))},
}


@pytest.mark.parametrize("name", STEPPED)
def test_steps_of_every_layer(name, target, tmp_path):
    """Mechanisms and mixers that no family of the other tests has."""
    model = streaming.decoder((STEPPED[name],) * 2)
    report = export(model, tmp_path / "bundle", target=target)
    names = " | ".join(case.name for case in report.cases)
    for part in ("length 33, left padding", "prefill 7 + 20 cached steps", "20 greedy"):
        assert part in names
    assert 0 < report.worst <= 1e-4


def test_a_growing_cache_of_unequal_keys_and_values(target, tmp_path):
    model = streaming.decoder((STEPPED["latent"],) * 2)
    export(model, tmp_path / "bundle", target=target, verify=False)
    bundle = runtime.load(tmp_path / "bundle", threads=1)
    shapes = {value.name: value.shape for value in bundle.session.get_inputs()}
    for name, size in (("key", 4), ("value", 10)):
        past = ["batch_size", 1, "past_sequence_length", size]
        assert shapes[f"past_key_values.1.{name}"] == past
    # onnxruntime-genai knows caches of one size only.
    assert not (tmp_path / "bundle" / "genai_config.json").exists()
    rows = [[7, 11, 60, 9, 23], [42]]
    for settings in ({}, {"num_beams": 3}):
        wanted = keras_seqattn.generate(model, rows, max_new_tokens=9, **settings)
        assert bundle.generate(rows, max_new_tokens=9, **settings) == wanted


LONG = {"max_position_embeddings": 4099}
FAMILIES = {
    "lfm2": LONG,
    "qwen3_next": LONG,
    "mistral": LONG | {"sliding_window": 256, "rolling_cache": True},
    # Farther than the distance that all longer ones are taken for.
    "transfo_xl": {"mem_len": 1103},
    "xlnet": {},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_length(name, target, tmp_path):
    model = tiny.decoder(name, **FAMILIES[name])
    export(model, tmp_path / "model.onnx", target=target, verify=False)
    session = create_session(tmp_path / "model.onnx")
    comparison = Comparison(model, session, get_precision("fp32"))
    cases = [comparison.full(1, length, None) for length in (1, 17, 333, 4099)]
    cases += [comparison.full(2, length, "left") for length in (17, 333)]
    # float32, summed in another order.
    assert 0 < max(case.error for case in cases) < 1e-4
