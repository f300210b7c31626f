"""The tokenizer's wrapper and chat templates against transformers."""

import json

import pytest
import transformers

from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.runtime.chat import ChatTemplate
from keras_seqattn.runtime.tokenizer import Tokenizer

from .conftest import TEMPLATE, TEXTS, byte_level_tokenizer, word_piece_tokenizer

pytestmark = pytest.mark.backend_free


def wrap(tokenizer, **config):
    return Tokenizer(
        {
            "tokenizer.json": tokenizer.to_str().encode(),
            "tokenizer_config.json": json.dumps(config).encode(),
        }
    )


def test_encode_and_decode():
    ours = wrap(byte_level_tokenizer())
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer())
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"]
        assert ours.decode(ours.encode(text)) == text
    ids = ours.encode("<|user|>the<|end|>")
    assert ours.decode(ids) == "the"
    assert ours.decode(ids, special_tokens=True) == "<|user|>the<|end|>"
    assert ours.vocabulary_size == len(theirs)


def test_special_tokens_are_optional_and_survive_truncation():
    ours = wrap(word_piece_tokenizer())
    assert ours.encode("the cat") == [2, 4, 5, 3]
    assert ours.encode("the cat", special_tokens=False) == [4, 5]
    encodings = ours.encode_batch(["the cat sat on", "the"], max_length=4)
    assert [e.ids for e in encodings] == [[2, 4, 5, 3], [2, 4, 3]]
    assert [len(e.ids) for e in ours.encode_batch(["the cat sat on"])] == [6]
    (pair,) = ours.encode_batch(["the"], ["cat sat"])
    assert (pair.ids, pair.type_ids) == ([2, 4, 3, 5, 6, 3], [0, 0, 0, 1, 1, 1])


def test_saved_truncation_and_padding_do_not_count():
    backend = word_piece_tokenizer()
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    assert wrap(backend).encode("the cat sat") == [2, 4, 5, 6, 3]


def test_padding_and_limits():
    assert wrap(byte_level_tokenizer(), pad_token="<|pad|>", eos_token="<|end|>").pad_id == 1
    assert wrap(byte_level_tokenizer(), pad_token={"content": "<|pad|>"}).pad_id == 1
    assert wrap(byte_level_tokenizer(), eos_token="<|user|>").pad_id == 2
    assert wrap(byte_level_tokenizer(), pad_token=None).pad_id == 0
    assert wrap(byte_level_tokenizer(), model_max_length=512).max_length == 512
    assert wrap(byte_level_tokenizer(), model_max_length=1e30).max_length is None
    assert wrap(byte_level_tokenizer()).max_length is None


def test_broken_files():
    with pytest.raises(BundleError, match="there is no tokenizer.json"):
        Tokenizer({})
    for content in (b"", b"{}", b"\xff\xfe", b"[1"):
        with pytest.raises(BundleError, match="tokenizer.json (cannot be read|is not valid JSON)"):
            Tokenizer({"tokenizer.json": content})
    with pytest.raises(BundleError, match="tokenizer_config.json is not valid JSON"):
        wrapped = {"tokenizer.json": byte_level_tokenizer().to_str().encode()}
        Tokenizer({**wrapped, "tokenizer_config.json": b"{"})


MESSAGES = [
    {"role": "system", "content": "Be <brief> & 'kind'."},
    {"role": "user", "content": "語 é?\n"},
]
TEMPLATES = [
    TEMPLATE,
    "{% for m in messages %}\n  {% if m.role %}\n  a\n  {% endif %}\n{% endfor %}\n",
    "{%- for m in messages %}\n    {{- m | tojson }}\n{% endfor %}",
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
    "[{{ m['content'] | trim }}]\n{% endfor %}",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
    "{{ ns.n }} {{ strftime_now('%Y') | length }} {{ pad_token is defined }}",
]


@pytest.mark.parametrize("prompt", [True, False])
@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_render_as_in_transformers(template, prompt):
    special = {"bos_token": "<|user|>", "eos_token": "<|end|>"}
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), chat_template=template, **special
    )
    wanted = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt)
    ours = ChatTemplate.from_assets(
        {"chat_template.jinja": template.encode()}, wrap(byte_level_tokenizer(), **special)
    )
    assert ours.render(MESSAGES, add_generation_prompt=prompt) == wanted


def test_where_templates_are_found():
    named = [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]
    both = wrap(byte_level_tokenizer(), chat_template="config")
    assert ChatTemplate.from_assets({}, both).render("x") == "config"
    file = {"chat_template.jinja": b"file"}
    assert ChatTemplate.from_assets(file, both).render("x") == "file"
    several = wrap(byte_level_tokenizer(), chat_template=named)
    assert ChatTemplate.from_assets({}, several).render("x") == "d"
    with pytest.raises(BundleError, match="no chat template: use generate"):
        ChatTemplate.from_assets({}, wrap(byte_level_tokenizer()))


def test_templates_cannot_leave_the_sandbox():
    for source in (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('roles must alternate') }}",
    ):
        with pytest.raises(InputError, match="the chat template refuses these messages"):
            ChatTemplate(source, {}).render([{"role": "user", "content": "x"}])
    with pytest.raises(BundleError, match="the chat template is not valid"):
        ChatTemplate("{% for %}", {})


@pytest.mark.parametrize("messages", [[{"role": "user"}], ["text"], [None]])
def test_malformed_messages(messages):
    with pytest.raises(InputError, match="a message must have role and content"):
        ChatTemplate(TEMPLATE, {}).render(messages)
