"""What is rehearsed of a bundle, and that each of its files is found at fault by name."""

import json
import shutil

import pytest

from keras_seqattn import runtime
from keras_seqattn.errors import BundleError
from keras_seqattn.files import digest
from keras_seqattn.runtime.rehearsal import rehearse

pytestmark = pytest.mark.backend_free


def changed(bundle, tmp_path, name, content):
    """A copy of a bundle with another file, which its parity.json lists."""
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    file = copy / name
    value = json.loads(file.read_bytes()) if isinstance(content, dict) and file.exists() else {}
    is_bytes = isinstance(content, bytes)
    file.write_bytes(content if is_bytes else json.dumps(value | content).encode())
    listing = json.loads((copy / "parity.json").read_bytes())
    listing["files"][name] = {"sha256": digest(file), "size": file.stat().st_size}
    (copy / "parity.json").write_text(json.dumps(listing))
    return copy


def test_decoder(decoder):
    assert rehearse(decoder) == [
        "tokenizer",
        "generation settings",
        "chat template",
        "two tokens from ids",
        "two tokens from text",
        "two tokens of a chat",
    ]


def test_encoder_decoder(seq2seq):
    assert rehearse(seq2seq) == [
        "tokenizer",
        "generation settings",
        "two tokens from ids",
        "two tokens from text",
        "translation_en_to_de",
        "translation_en_to_fr",
        "summarization",
    ]


def test_embedder(embedder):
    assert rehearse(embedder[0]) == ["tokenizer", "pooling", "embed of a text"]


@pytest.mark.parametrize(
    "name, content",
    [
        ("generation_config.json", {"bad_words_ids": [3, "x"]}),
        ("generation_config.json", {"forced_eos_token_id": 9999}),
        ("generation_config.json", {"num_beams": 10**9}),
        ("generation_config.json", {"temperature": "hot"}),
        ("generation_config.json", {"guidance_scale": 3.0}),
        ("tokenizer.json", b'{"a": 1}'),
        ("tokenizer_config.json", b"3"),
        ("tokenizer_config.json", {"model_max_length": "x"}),
        ("tokenizer_config.json", {"chat_template": 3}),
        ("tokenizer_config.json", {"chat_template": "{{ 1 / 0 }}"}),
        ("tokenizer_config.json", {"chat_template": "{% break %}"}),
        ("tokenizer_config.json", {"chat_template": "{{ raise_exception('no') }}"}),
        ("chat_template.jinja", b"{% for a in range(99999) %}{{ 'x' * 10**10 }}{% endfor %}"),
        ("config.json", {"vocab_size": 300}),
    ],
    ids=lambda value: str(value)[:45],
)
def test_a_decoder_whose_file_is_at_fault(decoder_bundle, tmp_path, name, content):
    copy = changed(decoder_bundle, tmp_path, name, content)
    with pytest.raises(BundleError, match=name) as caught:
        runtime.load(copy, check=True, threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        {"task_specific_params": {"summarization": {"num_beams": "x"}}},
        {"task_specific_params": {"translation_en_to_de": {"max_lengths": 3}}},
        {"decoder_start_token_id": "x"},
    ],
    ids=str,
)
def test_an_encoder_decoder_whose_file_is_at_fault(seq2seq_bundle, tmp_path, content):
    copy = changed(seq2seq_bundle, tmp_path, "config.json", content)
    (copy / "generation_config.json").unlink()
    (copy / "parity.json").unlink()
    with pytest.raises(BundleError, match="config.json"):
        rehearse(runtime.load(copy, threads=1))


@pytest.mark.parametrize(
    "name, content",
    [
        ("modules.json", b'[{"type": "x.Dense", "path": ""}]'),
        ("1_Pooling/config.json", {"pooling_mode": "median"}),
        ("sentence_bert_config.json", {"max_seq_length": 1}),
    ],
)
def test_an_embedder_whose_file_is_at_fault(embedder, tmp_path, name, content):
    copy = changed(embedder[0].bundle.path, tmp_path, name, content)
    with pytest.raises(BundleError):
        runtime.load(copy, check=True, threads=1)


def test_a_template_may_refuse_what_it_does_not_know(decoder_bundle, tmp_path):
    source = (
        "{% if messages[0].role == 'system' or messages | length > 1 %}{{ raise_exception('no') }}"
        "{% endif %}{{ messages[0].content }}"
    )
    copy = changed(decoder_bundle, tmp_path, "tokenizer_config.json", {"chat_template": source})
    runtime.load(copy, check=True, threads=1)


def test_files_that_nobody_reads_may_hold_anything(decoder_bundle, tmp_path):
    copy = changed(decoder_bundle, tmp_path, "vocab.json", b"\xff")
    runtime.load(copy, check=True, threads=1)
