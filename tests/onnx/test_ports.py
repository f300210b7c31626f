"""What a file says about its ports: families, models of other makers, hostile files."""

import contextlib
import dataclasses
import json

import keras
import numpy as np
import onnx
import pytest

from keras_seqattn import runtime
from keras_seqattn.errors import BundleError, ExportError, InputError
from keras_seqattn.inspection import inspect
from keras_seqattn.onnx import build_graph, export, verify
from keras_seqattn.ports import METADATA, Port, Ports
from keras_seqattn.runtime.session import create_session
from tests.onnx import tiny
from tests.onnx.apply import Apply

pytestmark = pytest.mark.backend_free


def relabelled(file, label):
    """Write a text, or nothing, in the place of the file's declaration of ports."""
    graph = onnx.load(file)
    kept = [entry for entry in graph.metadata_props if entry.key != METADATA]
    assert len(kept) == len(graph.metadata_props) - 1
    del graph.metadata_props[:]
    graph.metadata_props.extend(kept)
    if label is not None:
        graph.metadata_props.add(key=METADATA, value=label)
    onnx.save(graph, file)


@pytest.mark.parametrize("name", [*tiny.DECODERS, *tiny.SEQ2SEQ])
def test_files_declare_what_the_model_declares(name, tmp_path):
    seq2seq = name in tiny.SEQ2SEQ
    model = tiny.seq2seq(name) if seq2seq else tiny.decoder(name)
    export(model, tmp_path / "bundle", verify=False)
    for part, declared in model.parts().items():
        ports = create_session(tmp_path / f"bundle/{part}.onnx").ports
        assert ports.inputs == declared.ports.inputs
        assert (ports.limits, ports.totals) == (declared.ports.limits, declared.ports.totals)
        given = {port.name: (port.role, port.dtype) for port in ports.outputs}
        assert given == {port.name: (port.role, port.dtype) for port in declared.ports.outputs}
        # The names of our files tell the same roles to who reads no declaration.
        relabelled(tmp_path / f"bundle/{part}.onnx", None)
        guessed = create_session(tmp_path / f"bundle/{part}.onnx").ports
        for side in ("inputs", "outputs"):
            roles = [(port.role, port.follows) for port in getattr(guessed, side)]
            assert roles == [(port.role, port.follows) for port in getattr(ports, side)]


def test_bundles_without_declarations_generate_as_before(tmp_path):
    for model in (tiny.decoder("llama"), tiny.decoder("lfm2"), tiny.seq2seq("t5")):
        folder = tmp_path / model.family
        export(model, folder, verify=False)
        prompts = [[5, 9, 2], [17, 3, 3]]
        wanted = runtime.load(folder).generate(prompts, max_new_tokens=5)
        (folder / "parity.json").unlink()
        for file in folder.glob("*.onnx"):
            relabelled(file, None)
        assert runtime.load(folder).generate(prompts, max_new_tokens=5) == wanted
        assert verify(folder, model).ok


def named_otherwise():
    """A model of another maker, whose names say nothing."""
    words = keras.Input((None,), name="words", dtype="int32")
    seen = keras.Input((None,), name="seen", dtype="int32")
    x = keras.layers.Embedding(19, 6, name="table")(words)
    x = x * keras.ops.cast(seen, "float32")[..., None]
    pooled = keras.ops.sum(x, axis=1)
    return keras.Model([words, seen], [keras.layers.Dense(3, name="classes")(pooled)])


WORDS = Port("words", "tokens", ("n", "t"), "int32", least=0, below=19)
SEEN = Port("seen", "mask", ("n", "t"), "int32", least=0, below=2)
CLASSES = Port("classes", "logits", ("n", 3))


def test_better_ports_of_another_makers_model_reach_the_file(tmp_path):
    model = named_otherwise()
    plain = export(model, tmp_path / "plain.onnx")
    assert plain.equal_lengths and not any("padding" in case.name for case in plain.cases)
    report = export(model, tmp_path / "model.onnx", ports=[WORDS, SEEN, CLASSES])
    # The lengths are declared to be one, so nothing had to be joined, and the mask is drawn as one.
    assert not report.equal_lengths and any("padding" in case.name for case in report.cases)
    ports = create_session(tmp_path / "model.onnx").ports
    assert ports.inputs == (WORDS, SEEN) and ports.given("logits").name == "classes"
    lines = str(inspect(tmp_path / "model.onnx"))
    assert "words  int32 (n, t)  tokens" in lines and "seen  int32 (n, t)  mask" in lines
    assert METADATA not in lines
    export(model, tmp_path / "bundle", ports=[WORDS, SEEN])
    bundle = runtime.load(tmp_path / "bundle")
    words, seen = np.array([[3, 18, 0]]), np.array([[1, 1, 0]])
    found = bundle.run(words=words, seen=seen)["classes"]
    np.testing.assert_allclose(found, model([words, seen]), rtol=0, atol=1e-5)
    for inputs, message in (
        ({"words": words + 1}, "words holds 19, but its values must be below 19"),
        ({"words": -words}, "words holds -18, but its values must be at least 0"),
        ({"seen": 2 * seen}, "seen must hold 0 and 1 only"),
        ({"seen": seen[:, :2]}, "must have the same t"),
    ):
        with pytest.raises(InputError, match=message):
            bundle.run({"words": words, "seen": seen} | inputs)


@pytest.mark.parametrize(
    "ports, message",
    [
        ("tokens", "ports must be a list of keras_seqattn.ports.Port, not 'tokens'"),
        (["words"], "ports must be a list"),
        ([Port("other", "mask", ("n", "t"), "int32")], "no input or output 'other'; it has"),
        ([Port("words", "tokens", ("n", 7), "int32")], "words has the axes"),
        ([Port("words", "tokens", ("n", "t"), "int64")], "words is int32 in the model, not int64"),
    ],
)
def test_ports_that_do_not_fit_the_model_are_refused(ports, message, tmp_path):
    with pytest.raises(ExportError, match=message):
        export(named_otherwise(), tmp_path / "model.onnx", ports=ports)
    with pytest.raises(ExportError, match=message):
        build_graph(named_otherwise(), ports=ports)
    assert not list(tmp_path.iterdir())


def test_families_declare_their_own_ports(tmp_path):
    model = tiny.decoder("llama")
    with pytest.raises(ExportError, match="llama declares its own ports"):
        export(model, tmp_path / "x", ports=[model.ports.inputs[0]])
    with pytest.raises(ExportError, match="ports= needs route 'trace'"):
        export(named_otherwise(), tmp_path / "x.onnx", route="tf2onnx", ports=[WORDS])


@pytest.fixture(scope="module")
def decoder_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "llama"
    export(tiny.decoder("llama"), folder, verify=False)
    (folder / "parity.json").unlink()
    return folder


@contextlib.contextmanager
def declaring(file, change):
    """The file with another declaration, `change` of its own one, inside the block."""
    before = file.read_bytes()
    entries = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    label = change(json.loads(entries[METADATA]))
    relabelled(file, label if isinstance(label, str) else json.dumps(label))
    try:
        yield
    finally:
        file.write_bytes(before)


def changed(declaration, name, **entry):
    side = "inputs" if name in declaration["inputs"] else "outputs"
    return declaration | {side: declaration[side] | {name: entry}}


HOSTILE = {
    "no JSON": lambda d: "{",
    "no object": lambda d: [],
    "deep": lambda d: "[" * 10**5,
    "unknown role": lambda d: changed(d, "input_ids", role="king"),
    "unknown key": lambda d: changed(d, "input_ids", role="tokens", axes=[]),
    "a limit of 0": lambda d: d | {"limits": {"total_sequence_length": 0}},
    "no tokens": lambda d: changed(d, "input_ids", role="data"),
    "no mask": lambda d: changed(d, "attention_mask", role="data"),
    "no logits": lambda d: changed(d, "logits", role="data"),
    "tokens for a cache": lambda d: changed(d, "past_key_values.0.key", role="tokens"),
    "a cache for tokens": lambda d: changed(d, "input_ids", role="cache", follows="logits"),
    "a state that grows": lambda d: changed(
        d, "past_key_values.0.key", role="state", follows="present.0.key"
    ),
    "a cache that nothing follows": lambda d: changed(d, "past_key_values.0.key", role="cache"),
    "an unknown follower": lambda d: changed(
        d, "past_key_values.0.key", role="cache", follows="nobody"
    ),
    "logits for a cache": lambda d: changed(
        d, "past_key_values.0.key", role="cache", follows="logits"
    ),
    "a length": lambda d: changed(d, "past_key_values.0.key", role="length", follows="logits"),
    "values in the place of keys": lambda d: changed(
        d, "past_key_values.0.key", role="cache", follows="present.1.value"
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_declarations_are_errors_of_one_line(kind, decoder_folder):
    with declaring(decoder_folder / "model.onnx", HOSTILE[kind]):
        with pytest.raises((BundleError, InputError)) as refused:
            runtime.load(decoder_folder).generate([[5, 9, 2]], max_new_tokens=4)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 900


def test_a_length_beside_caches_is_refused(decoder_folder):
    key, follows = "past_key_values.0.key", "present.0.key"
    change = lambda d: changed(d, key, role="length", follows=follows)  # noqa: E731
    with declaring(decoder_folder / "model.onnx", change):
        with pytest.raises(BundleError, match="is of a graph without caches"):
            runtime.load(decoder_folder).generate([[5, 9, 2]], max_new_tokens=4)


@pytest.fixture(scope="module")
def translator_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "t5"
    export(tiny.seq2seq("t5"), folder, verify=False)
    (folder / "parity.json").unlink()
    return folder


@pytest.mark.parametrize(
    "name, entry",
    [
        ("past_key_values.0.decoder.key", {"role": "data"}),
        ("past_key_values.0.decoder.key", {"role": "tokens"}),
        ("encoder_hidden_states", {"role": "context", "follows": "logits"}),
        ("input_ids", {"role": "tokens", "follows": "logits"}),
        (
            "past_key_values.0.encoder.key",
            {"role": "source_cache", "follows": "present.0.encoder.value"},
        ),
        ("encoder_attention_mask", {"role": "mask"}),
    ],
)
def test_hostile_declarations_of_an_encoder_decoder(name, entry, translator_folder):
    file = translator_folder / "decoder_model_merged.onnx"
    with declaring(file, lambda d: changed(d, name, **entry)):
        with pytest.raises(BundleError) as refused:
            runtime.load(translator_folder).generate([[5, 9, 2]], max_new_tokens=4)
    assert "\n" not in str(refused.value)


def test_limits_of_other_dimensions_bound_no_text():
    ports = Ports((Port("input_ids", "tokens", ("batch_size", "t")),), (), limits={"batch_size": 1})
    assert ports.longest is None
    assert dataclasses.replace(ports, limits={"batch_size": 1, "t": 9}).longest == 9


def test_outputs_computed_from_int64_keep_their_values(tmp_path):
    ids = keras.Input((None,), dtype="int64", name="ids")
    export(keras.Model(ids, keras.ops.concatenate([ids, ids], axis=1)), tmp_path / "x.onnx")
    session = create_session(tmp_path / "x.onnx")
    found = session.run(None, {"ids": np.array([[3 * 10**12, 5]])})[0]
    assert found.tolist() == [[3 * 10**12, 5, 3 * 10**12, 5]]


def test_inputs_may_be_nested(tmp_path):
    a, b = keras.Input((None, 4), name="a"), keras.Input((None, 4), name="b")
    model = keras.Model({"q": [a, b]}, keras.layers.Dense(3)(a) + b[..., :3])
    assert export(model, tmp_path / "x.onnx").ok
    assert [p.name for p in create_session(tmp_path / "x.onnx").ports.inputs] == ["a", "b"]


def test_a_past_of_another_maker_is_an_input_like_others(tmp_path):
    past = keras.Input((4,), name="past_states.length")
    assert export(keras.Model(past, past * 2), tmp_path / "x.onnx").ok


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_an_output_that_is_a_transposition_is_quantised(precision, tmp_path):
    x = keras.Input((None, 32), name="x")
    model = keras.Model(x, keras.layers.LSTM(32, return_sequences=True)(x))
    assert export(model, tmp_path / "x.onnx", precision=precision).ok


def cut_and_joined(a, b, c):
    cut = a[:, : keras.ops.shape(b)[1]]
    return keras.ops.concatenate([cut, c], axis=1)


def test_lengths_of_one_name_stay_equal_where_lengths_differ(tmp_path):
    inputs = [keras.Input((None, 4), name=name) for name in "abc"]
    model = keras.Model(inputs, Apply(cut_and_joined, keras.KerasTensor((None, None, 4)))(*inputs))
    ports = [Port(name, axes=("n", axis, 4)) for name, axis in zip("abc", "ttu", strict=True)]
    report = export(model, tmp_path / "x.onnx", ports=ports)
    assert any(" 1, " in case.name for case in report.cases)


def test_lengths_that_were_joined_differ_from_others(tmp_path):
    a, b, c = (keras.Input((None, 4), name=name) for name in "abc")
    outputs = [a + b, keras.ops.max(c, axis=1)]
    report = export(keras.Model([a, b, c], outputs), tmp_path / "x.onnx")
    assert report.equal_lengths and any(" 1, " in case.name for case in report.cases)


def test_another_makers_decoder_with_caches_is_verified(tmp_path):
    """The mask has the length of the past and of the new tokens, as its name says."""
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    past = keras.Input((2, None, 4), name="past_key_values.0.key")
    new = keras.ops.transpose(
        keras.layers.Reshape((-1, 2, 4))(keras.layers.Embedding(19, 8)(ids)), (0, 2, 1, 3)
    )
    present = keras.ops.concatenate([past, new], axis=2)
    seen = present * keras.ops.cast(mask, "float32")[:, None, :, None]
    model = keras.Model(
        {"input_ids": ids, "attention_mask": mask, "past_key_values.0.key": past},
        {"logits": keras.ops.sum(seen, axis=(1, 2)), "present.0.key": present},
    )
    assert export(model, tmp_path / "x.onnx").ok
