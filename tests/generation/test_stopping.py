"""Text as it grows: whole characters only, and never a part of a stop string."""

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from keras_seqattn.generation import Generator
from keras_seqattn.generation.stopping import Detokenizer, StopStrings, TextStream

pytestmark = pytest.mark.backend_free


def byte_tokenizer():
    """One token per byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def fallback_tokenizer():
    """Words with leading spaces as SentencePiece has them, and bytes as <0x..>."""
    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁the", "▁cat", "s", "▁"]
    tokenizer = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


TEXTS = [
    "plain",
    "naïve café",
    "日本語のテキスト",
    "👩‍👩‍👧 family 🎉",
    "a\u0301 mixed 語x",
    "\ufffd kept \ufffd",
]


@pytest.mark.parametrize("text", TEXTS)
def test_bytes_become_whole_characters(text):
    tokenizer = byte_tokenizer()
    stream = Detokenizer(tokenizer.decode)
    pieces = [stream.push(token) for token in tokenizer.encode(text).ids]
    assert "".join(pieces) + stream.finish() == text
    if "\ufffd" not in text:
        assert all("\ufffd" not in piece for piece in pieces)
        # Each character comes with its last byte, no later.
        assert [len(piece) for piece in pieces if piece] == [1] * len(text)


def test_byte_fallback_and_leading_spaces():
    tokenizer = fallback_tokenizer()
    pieces = ["▁the", "▁cat", "s", "▁", "<0xE2>", "<0x82>", "<0xAC>", "▁the"]
    ids = [tokenizer.token_to_id(piece) for piece in pieces]
    stream = Detokenizer(tokenizer.decode)
    assert [stream.push(i) for i in ids] == ["the", " cat", "s", " ", "", "", "€", " the"]
    after = Detokenizer(tokenizer.decode, context=ids[:1])
    assert after.push(ids[1]) == " cat"


def test_broken_bytes_come_out_in_the_end():
    tokenizer = byte_tokenizer()
    broken = tokenizer.encode("é").ids[:1]
    stream = Detokenizer(tokenizer.decode)
    assert stream.push(broken[0]) == ""
    assert stream.finish() == "\ufffd"
    # Bytes that can no longer become a character do not hold the text back for ever.
    stream = Detokenizer(tokenizer.decode)
    assert "".join(stream.push(broken[0]) for _ in range(9)) == "\ufffd" * 6


def test_work_per_token_does_not_grow():
    tokenizer, sizes = byte_tokenizer(), []

    def decode(ids):
        sizes.append(len(ids))
        return tokenizer.decode(ids)

    stream = Detokenizer(decode)
    for token in tokenizer.encode("語 and é, " * 50).ids:
        stream.push(token)
    assert max(sizes) <= 8


@pytest.mark.parametrize("stops", [["END"], ["\n\n", "END"], ["D", "NEVER"], ["EN", "END", "ND"]])
@pytest.mark.parametrize(
    "text", ["some text END more", "EEND", "ENENDX", "no stop EN", "END", "a\n\nEND", ""]
)
def test_stop_strings_against_the_definition(stops, text):
    found = [text.find(stop) for stop in stops if stop in text]
    for size in (1, 2, 5):
        stream, given = StopStrings(stops), ""
        for start in range(0, len(text), size):
            given += stream.push(text[start : start + size])
            seen = text[: start + size]
            if not any(stop in seen for stop in stops):
                held = seen[len(given) :]
                assert given + held == seen
                # What is held back could begin a stop string; nothing longer is held.
                assert not held or any(stop.startswith(held) for stop in stops)
                ends = [seen[i:] for i in range(len(given))]
                assert not any(stop.startswith(end) for stop in stops for end in ends)
        assert stream.found == bool(found)
        given += stream.finish()
        # With several stop strings the one that is complete first wins, as tokens come.
        if size == 1 and found:
            first = min(text.find(s) + len(s) for s in stops if s in text)
            starts = [text.find(s) for s in stops if s in text[:first]]
            assert given == text[: min(starts)]
        elif not found:
            assert given == text


def test_of_two_stop_strings_the_first_cuts():
    stream = StopStrings(["ND", "EN", "X"])
    assert stream.push("a ENDX") == "a "
    assert (stream.found, stream.push("more"), stream.finish()) == (True, "", "")


def test_text_stream_stops_inside_a_token():
    tokenizer = byte_tokenizer()
    stream, given = TextStream(tokenizer.decode, stop_strings=["é!"]), ""
    for token in tokenizer.encode("café! more").ids:
        given += stream.push(token)
    assert (given + stream.finish(), stream.stopped) == ("caf", True)


class Script:
    """A decoder that writes given token ids, whatever it is asked."""

    vocabulary_size = 256

    def __init__(self, *rows):
        self.rows = rows

    def start(self, batch_size, max_length):
        self.step = 0

    def __call__(self, input_ids, attention_mask):
        logits = np.zeros((len(self.rows), self.vocabulary_size), np.float32)
        for row, script in zip(logits, self.rows, strict=True):
            row[script[min(self.step, len(script) - 1)]] = 9
        self.step += 1
        return logits

    def reorder(self, rows):
        assert (np.asarray(rows) < 99).all()


class Adapter:
    """What `Generator` wants of a tokenizer."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def encode(self, text, special_tokens=True):
        return self._tokenizer.encode(text).ids

    def decode(self, ids):
        return self._tokenizer.decode(ids)


@pytest.fixture
def scripted():
    tokenizer = byte_tokenizer()
    rows = [tokenizer.encode(text).ids for text in ("one, twö STOP three", "STO P never stops!!")]
    return Generator(Script(*rows), tokenizer=Adapter(tokenizer)), rows


def test_generate_cuts_at_the_stop_string(scripted):
    generator, _ = scripted
    texts = generator.generate(["a", "bc"], stop_strings=["STOP"], max_new_tokens=19)
    assert texts == ["one, twö ", "STO P never stops!!"]


def test_ids_end_with_the_token_that_completes_the_stop_string(scripted):
    generator, rows = scripted
    got = generator.generate([[1], [2, 3]], stop_strings="STOP", max_new_tokens=19)
    assert got == [rows[0][:14], rows[1][:19]]


def test_the_prompt_decides_whether_a_space_comes_first():
    tokenizer = fallback_tokenizer()
    the, cat = (tokenizer.token_to_id(piece) for piece in ("▁the", "▁cat"))
    script = Script([cat, the])
    script.vocabulary_size = tokenizer.get_vocab_size()
    adapter = Adapter(tokenizer)
    adapter.encode = lambda text, special_tokens=True: [the]
    assert Generator(script, tokenizer=adapter).generate("the", max_new_tokens=2) == " cat the"


def test_stream_equals_generate_and_hides_the_stop_string(scripted):
    generator, rows = scripted
    single = Generator(Script(rows[0]), tokenizer=generator.tokenizer)
    pieces = list(single.stream("a", stop_strings=["STOP"], max_new_tokens=40))
    assert "".join(pieces) == single.generate("a", stop_strings=["STOP"], max_new_tokens=40)
    assert "".join(pieces) == "one, twö " and "S" not in "".join(pieces)
    batch = list(generator.stream(["a", "bc"], stop_strings=["STOP"], max_new_tokens=19))
    joined = ["".join(pieces[i] for pieces in batch) for i in range(2)]
    assert joined == ["one, twö ", "STO P never stops!!"]
    assert generator.decoder.step == 19


def test_rows_that_stopped_end_the_work(scripted):
    generator, rows = scripted
    single = Generator(Script(rows[0]), tokenizer=generator.tokenizer)
    single.generate("a", stop_strings=["STOP"], max_new_tokens=40)
    assert single.decoder.step == 14


def test_beams_heed_stop_strings(scripted):
    generator, rows = scripted
    single = Generator(Script(rows[0], rows[0]), tokenizer=generator.tokenizer)
    settings = {"num_beams": 2, "max_new_tokens": 40, "length_penalty": 0.0}
    text = single.generate("a", stop_strings=["STOP"], **settings)
    assert (text, single.decoder.step) == ("one, twö ", 14)
