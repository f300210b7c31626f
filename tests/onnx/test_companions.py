"""What is exported beside the graph: verified means that the runtime can use it."""

import json

import keras
import pytest

from keras_seqattn import models, runtime
from keras_seqattn.errors import ExportError
from keras_seqattn.onnx import export, verify
from tests.fuzz.bundles import SETTINGS, TEMPLATE, small_tokenizer
from tests.helpers import randomise
from tests.onnx import tiny

pytestmark = pytest.mark.backend_free
TOKENIZER = small_tokenizer()
FILES = {
    "tokenizer.json": TOKENIZER.to_str().encode(),
    "tokenizer_config.json": {"eos_token": "<|end|>", "chat_template": TEMPLATE},
    "generation_config.json": SETTINGS,
}


def as_bytes(files):
    return {n: x if isinstance(x, bytes) else json.dumps(x).encode() for n, x in files.items()}


@pytest.fixture(scope="module")
def llama():
    size = {"vocab_size": TOKENIZER.get_vocab_size(), "num_hidden_layers": 1}
    return randomise(models.build("llama", **(tiny.LLAMA | size)), seed=3)


def with_files(model, **changes):
    files = {**FILES, **{name.replace("__", "."): value for name, value in changes.items()}}
    model.assets = as_bytes(files)
    return model


def test_what_was_rehearsed_is_reported(llama, tmp_path):
    report = export(with_files(llama), tmp_path / "out", lengths=[3])
    assert report.rehearsed[:3] == ["tokenizer", "generation settings", "chat template"]
    assert "two tokens of a chat" in report.rehearsed
    listing = json.loads((tmp_path / "out" / "parity.json").read_bytes())
    assert listing["rehearsed"] == report.rehearsed
    model = runtime.load(tmp_path / "out", check=True, threads=1)
    assert isinstance(model.chat("Hello", max_new_tokens=2), str)
    assert verify(tmp_path / "out", llama, lengths=[3]).rehearsed == report.rehearsed


@pytest.mark.parametrize(
    "name, content",
    [
        ("tokenizer.json", b'{"a": 1}'),
        ("tokenizer.json", b"\xff"),
        ("tokenizer_config.json", b"3"),
        ("tokenizer_config.json", {"model_max_length": "x"}),
        ("tokenizer_config.json", {"chat_template": 3}),
        ("tokenizer_config.json", {"chat_template": "{{ 1 / 0 }}"}),
        ("tokenizer_config.json", {"chat_template": "{% endfor %}"}),
        ("chat_template.jinja", b"{{ 'x' * 10**10 }}"),
        ("generation_config.json", b"[]"),
        ("generation_config.json", {"bad_words_ids": [3, "x"]}),
        ("generation_config.json", {"top_k": None, "temperature": "hot"}),
        ("generation_config.json", {"eos_token_id": "x"}),
        ("generation_config.json", {"forced_eos_token_id": 10**6}),
        ("generation_config.json", {"guidance_scale": 3}),
    ],
    ids=lambda value: str(value)[:45],
)
def test_a_file_that_cannot_be_used(llama, tmp_path, name, content):
    with_files(llama, **{name.replace(".", "__"): content})
    with pytest.raises(ExportError, match=f"nothing was written: .*{name}.*tokenizer=") as caught:
        export(llama, tmp_path / "out", lengths=[3])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    # Unverified, it is written as it is.
    export(llama, tmp_path / "out", verify=False)


def test_a_tokenizer_that_is_larger_than_the_model(tmp_path):
    model = randomise(models.build("llama", **tiny.LLAMA), seed=3)
    with_files(model, generation_config__json={})
    with pytest.raises(ExportError, match="nothing was written: tokenizer.json cannot be used"):
        export(model, tmp_path / "out", lengths=[3])


def test_labels_of_other_classes(tmp_path):
    size = {"vocab_size": TOKENIZER.get_vocab_size(), "num_labels": 3}
    model = models.build("bert", task="sequence_classification", **(tiny.BERT | size))
    model.config["id2label"] = {"0": "a", "1": "b"}
    model.assets = as_bytes({"tokenizer.json": FILES["tokenizer.json"]})
    with pytest.raises(ExportError, match="id2label names 2 labels, and the graph has 3"):
        export(model, tmp_path / "out", lengths=[3])


def test_files_that_nobody_reads_do_not_matter(llama, tmp_path):
    export(with_files(llama, vocab__json=b"\xff", merges__txt=b""), tmp_path / "out", lengths=[3])
    assert (tmp_path / "out" / "vocab.json").read_bytes() == b"\xff"


def test_a_model_of_no_task_can_be_loaded_and_run(tmp_path):
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, {"last_hidden_state": keras.layers.Dense(2)(x)})
    assert export(model, tmp_path / "out", lengths=[3]).rehearsed == ["loaded"]
    loaded = runtime.load(tmp_path / "out", check=True, threads=1)
    assert loaded.task == "unknown"
    assert loaded.run(x=[[[0.5] * 3]])["last_hidden_state"].shape == (1, 1, 2)


@pytest.mark.parametrize("key", ["mem_len", "max_global_tokens", "type_vocab_size"])
def test_keys_that_only_other_families_read_change_nothing(key, tmp_path):
    model = tiny.seq2seq("t5")
    model.config[key] = [3, "x"]
    assert export(model, tmp_path / "out").ok


def test_limits_that_only_other_families_have_are_left_out(tmp_path):
    model = models.build("llama", **tiny.LLAMA)
    models.save(model, tmp_path / "saved")
    file = tmp_path / "saved" / "config.json"
    file.write_text(
        json.dumps(json.loads(file.read_text()) | {"max_decoder_position_embeddings": 2})
    )
    export(models.load(tmp_path / "saved"), tmp_path / "out", verify=False)
    bundle = runtime.load(tmp_path / "out")
    assert len(bundle.generate([3, 5, 7, 11], max_new_tokens=3)) == 3
