"""Settings at and beyond their limits: refused, or of use; never NaN, never a raw error."""

import itertools

import numpy as np
import pytest

from keras_seqattn.errors import ConfigError, InputError
from keras_seqattn.generation import GenerationConfig, Generator, beam_search, decode
from keras_seqattn.generation.checkpoint import position_limit

pytestmark = pytest.mark.backend_free

SIZE = 11


class Decoder:
    """A decoder whose scores follow from the last token alone, by a random table."""

    vocabulary_size = SIZE
    is_streaming = True

    def __init__(self, table=None):
        drawn = np.random.default_rng(5).normal(size=(SIZE, SIZE)).astype(np.float32)
        self.table = drawn if table is None else table

    def start(self, batch_size, max_length):
        self.rows = batch_size

    def __call__(self, input_ids, attention_mask):
        assert attention_mask.shape[0] == self.rows
        return self.table[input_ids[:, -1]]

    def reorder(self, rows):
        pass


class Tokenizer:
    def encode(self, text, special_tokens=True):
        return [ord(letter) % SIZE for letter in text]

    def decode(self, ids):
        return "".join("abcdefghijk"[i] for i in ids)


@pytest.fixture
def generator():
    return Generator(Decoder(), tokenizer=Tokenizer())


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 1e-300},
        {"do_sample": True, "temperature": 1e300},
        {"do_sample": True, "temperature": 10**400},
        {"do_sample": True, "top_k": 1.5},
        {"do_sample": True, "top_p": "0.5"},
        {"do_sample": True, "temperature": np.array([1.0, 2.0])},
        {"repetition_penalty": 1e-300},
        {"repetition_penalty": 1e300},
        {"num_beams": 2, "length_penalty": 1e308},
        {"num_beams": 2, "length_penalty": -1e308},
        {"num_beams": 2, "length_penalty": 10**400},
        {"num_beams": 2, "length_penalty": -9.0},
        {"num_beams": 2, "early_stopping": np.array([1, 2])},
        {"num_beams": 10**9},
        {"num_beams": 10**30},
        {"max_new_tokens": 10**30},
        {"max_new_tokens": "5"},
        {"max_new_tokens": 10**5000},
        {"seed": "x"},
        {"eos_token_id": np.array(3.5)},
        {"eos_token_id": itertools.count()},
        {"eos_token_id": 2**63},
        {"eos_token_id": np.broadcast_to(np.int8(1), (10**6, 10**6))},
        {"pad_token_id": SIZE},
        {"forced_eos_token_id": SIZE},
        {"bad_words_ids": [[SIZE]]},
        {"bad_words_ids": 3.5},
        {"bad_words_ids": {"a": 1}},
        {"bad_words_ids": [[5], None]},
        {"no_repeat_ngram_size": 2**31},
        {"stop_strings": ["a"] * 10**5},
        {"stop_strings": {"a": 1}},
        {"special_tokens": 3},
        {"as_text": "yes"},
        {"has_encoder": True},
        {"file": {}},
        {"x" * 10**6: 1},
    ],
    ids=lambda settings: next(iter(settings))[:20],
)
def test_settings_out_of_range_are_refused_in_one_line(generator, settings):
    with pytest.raises(InputError) as refused:
        generator.generate([3, 4], **{"max_new_tokens": 40} | settings)
    message = str(refused.value)
    assert any(name[:20] in message for name in settings)
    assert len(message) < 900 and "\n" not in message


@pytest.mark.parametrize(
    "settings",
    [
        {"do_sample": True, "temperature": 1e-9, "seed": 1},
        {"do_sample": True, "top_k": 1, "seed": 2**200},
        {"do_sample": True, "top_p": 1e-300, "seed": 0},
        {"do_sample": True, "top_k": 10**18, "min_p": 1.0},
        {"no_repeat_ngram_size": 2**31 - 1},
        {"stop_strings": ["x" * 10**7]},
        {"bad_words_ids": [[i % SIZE] * 9 for i in range(10**5)]},
        {"eos_token_id": [SIZE, 2**31 - 1]},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_the_limits_of_settings_are_greedy_search(generator, settings):
    assert generator.generate([3], max_new_tokens=9, **settings) == generator.generate(
        [3], max_new_tokens=9
    )


def test_the_highest_temperature_and_penalty_stay_finite(generator):
    settings = {"do_sample": True, "top_k": 0, "temperature": 1e9, "repetition_penalty": 1e9}
    drawn = generator.generate([3], max_new_tokens=60, seed=3, **settings)
    assert len(drawn) == 60 and len(set(drawn)) > 5


@pytest.mark.parametrize("penalty", [1000.0, 30.0, -1.0, 0])
def test_length_penalties_that_can_be_computed_give_an_answer(generator, penalty):
    settings = {"num_beams": 3, "length_penalty": penalty, "eos_token_id": 4}
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        answer = generator.generate([3], max_new_tokens=12, **settings)
    assert 1 <= len(answer) <= 12


def test_more_beams_and_ends_than_candidates(generator):
    settings = {"num_beams": 40, "eos_token_id": list(range(SIZE)), "max_new_tokens": 3}
    assert len(generator.generate([3], **settings)) == 1


@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"num_beams": 2}])
def test_settings_that_forbid_every_token_are_said(generator, settings):
    with pytest.raises(InputError, match="the settings forbid every token: relax bad_words_ids"):
        generator.generate([3], bad_words_ids=[[i] for i in range(SIZE)], **settings)
    # A row that has ended may run out of tokens: it is not asked for any.
    rows = generator.generate(
        [[3], [4]], eos_token_id=5, no_repeat_ngram_size=1, max_new_tokens=9, **settings
    )
    assert len(rows) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("settings", [{}, {"do_sample": True}, {"num_beams": 2}])
def test_scores_that_are_not_finite_are_said(value, settings):
    table = Decoder().table.copy()
    table[:, 7] = value
    with pytest.raises(InputError, match="scores of the next token are not finite"):
        Generator(Decoder(table)).generate([3], max_new_tokens=3, **settings)


def test_an_answer_may_be_endless(generator):
    stream = generator.stream([3, 4], max_new_tokens=10**12)
    first = list(itertools.islice(stream, 700))
    assert first == generator.generate([3, 4], max_new_tokens=700)
    beams = {"num_beams": 2, "eos_token_id": list(range(SIZE))}
    assert generator.generate([3, 4], max_new_tokens=10**12, **beams)


def test_what_no_memory_holds_is_refused_before_anything_runs():
    class Roomy(Decoder):
        is_streaming = False

        def room(self, rows, prompt_length, max_length, sources, source_length):
            return rows * max_length * 1000

    with pytest.raises(InputError, match="new tokens need at least 909 TiB of mem.* lower"):
        Generator(Roomy()).stream([3], max_new_tokens=10**12)
    assert len(Generator(Roomy()).generate([3], max_new_tokens=5)) == 5


@pytest.mark.parametrize(
    "inputs",
    [
        *(None, 3, 2.5, True, [], [[]], [None], [[None]], {"a": 1}, {5}, iter([1]), object()),
        *(
            [-1],
            [SIZE],
            [2**63],
            [2**64],
            [[2**31]],
            [1.0],
            [True],
            [[1, 2], 3],
            [[[1]]],
            [[1, [2]]],
        ),
        *(
            np.array(3),
            np.array([1.5]),
            np.array([None]),
            np.array(["a"]),
            np.zeros((2, 2, 2), int),
        ),
        *(np.uint64([2**63]), np.broadcast_to(np.int8(1), (10**6, 10**6)), ["a", None], ["\ud800"]),
        *(b"x", range(10**12), np.zeros((0, 3), int)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_prompts_of_other_kinds_are_refused(generator, inputs):
    for method in (generator.generate, generator.stream):
        with pytest.raises(InputError) as refused:
            method(inputs, max_new_tokens=2)
        assert len(str(refused.value)) < 500 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "mask", [3, "11", [1], [[2, 1]], [[1, 0]], [[0, 0]], [[0.5, 1.0]], [[[1, 1]]], object()]
)
def test_masks_of_other_kinds_are_refused(generator, mask):
    with pytest.raises(InputError, match="attention_mask"):
        generator.generate([[3, 4]], mask)


@pytest.mark.parametrize("run", [decode, beam_search])
@pytest.mark.parametrize(
    "change",
    [{"config": {}}, {"input_ids": [3]}, {"attention_mask": None}, {"max_new_tokens": 0}],
    ids=lambda change: next(iter(change)),
)
def test_loops_check_what_they_are_given(run, change):
    ids = np.array([[3]])
    arguments = {"input_ids": ids, "attention_mask": ids, "config": GenerationConfig(num_beams=2)}
    with pytest.raises(InputError):
        run(Decoder(), **arguments | {"max_new_tokens": 3} | change)


@pytest.mark.parametrize("decoder", [None, 3, object()])
def test_what_is_no_decoder_is_refused(decoder):
    with pytest.raises(InputError, match="protocol"):
        Generator(decoder)


@pytest.mark.parametrize(
    "file",
    [
        {"temperature": "x"},
        {"temperature": float("nan")},
        {"eos_token_id": [[1]]},
        {"eos_token_id": "x"},
        {"bad_words_ids": {"a": [1]}},
        {"max_length": 2.5},
        {"num_beams": None, "do_sample": []},
        {"forced_bos_token_id": [1, 2]},
    ],
)
def test_values_of_files_are_said_to_be_of_files(file):
    with pytest.raises(InputError, match=r"^generation_config.json or config.json holds a wrong"):
        GenerationConfig.from_settings(file)
    # What the call says wins over it.
    if "temperature" in file:
        GenerationConfig.from_settings(file, do_sample=True, temperature=0.5)


@pytest.mark.parametrize("limit", ["x", -1, 2.5, True, [512], {}])
def test_positions_of_a_wrong_kind_are_refused(limit):
    with pytest.raises(ConfigError, match="max_position_embeddings"):
        position_limit({"max_position_embeddings": limit})
