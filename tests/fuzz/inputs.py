"""Tiny bundles of every kind of task, and arguments for their methods: most good, some not."""

import decimal
import fractions
import itertools
import json

import numpy as np

from keras_seqattn import models, onnx, runtime
from tests.fuzz.mutations import hostile, like, pick
from tests.helpers import randomise
from tests.onnx import tiny
from tests.runtime.conftest import (
    TASKS,
    TEMPLATE,
    TEXTS,
    byte_level_tokenizer,
    word_piece_tokenizer,
)

_BYTE_LEVEL, _WORD_PIECE = byte_level_tokenizer(), word_piece_tokenizer()
_SETTINGS = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "chat_template": TEMPLATE}
_WORDS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
METHODS = {
    "causal_lm": ("generate", "generate", "stream", "chat", "run"),
    "seq2seq_lm": ("generate", "generate", "stream", "translate", "summarize"),
    "embedding": ("embed", "embed", "run"),
    "sequence_classification": ("classify", "classify", "run"),
    "token_classification": ("tag", "tag", "run"),
}
KINDS = (
    *("llama", "llama-portable", "mistral", "lfm2", "qwen3_next", "transfo_xl"),
    *("t5", "bart", "bahdanau", "rnn_seq2seq"),
    *("bert", "bert-classifier", "bert-tagger", "llama-embedding"),
    *("bert-answers", "big_bird-masked"),
)
_LOADED = {}


def bundle(kind, folder):
    """The bundle of a kind, written below `folder` once and loaded once."""
    if kind not in _LOADED:
        path = folder / kind
        if not path.exists():
            onnx.export(
                _model(kind),
                path,
                target="portable" if kind.endswith("portable") else "ort",
                verify=False,
            )
        _LOADED[kind] = runtime.load(path, threads=1)
    return _LOADED[kind]


def _model(kind):
    name = kind.removesuffix("-portable")
    if name in tiny.ENCODERS:
        family, task, config = tiny.ENCODERS[name]
    elif name == "bert":
        family, task, config = "bert", "embedding", tiny.BERT
    else:
        family, config = {**tiny.DECODERS, **tiny.SEQ2SEQ}[name]
        task = None
    tokenizer, settings = _BYTE_LEVEL, _SETTINGS
    if name in tiny.ENCODERS and family != "llama" or name == "bert":
        tokenizer, settings = _WORD_PIECE, _WORDS
    config = config | {"vocab_size": tokenizer.get_vocab_size()}
    model = randomise(models.build(family, **({"task": task} if task else {}), **config), seed=3)
    if family == "t5":
        model.config["task_specific_params"] = TASKS
    model.assets = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(settings).encode(),
    }
    return model


def anything(random, good=None):
    """What hardly any argument may be, of JSON's kinds and of Python's."""
    share = random.random()
    is_huge = isinstance(good, int) and abs(good) > 2**64
    if share < 0.35 and good is not None and not callable(good) and not is_huge:
        return like(random, good)
    if share < 0.7:
        return hostile(random)
    return pick(random, _PYTHON)()


_PYTHON = (
    object,
    lambda: set("ab"),
    lambda: frozenset(),
    lambda: b"bytes",
    lambda: bytearray(b"x"),
    lambda: memoryview(b"x"),
    lambda: iter([1]),
    lambda: itertools.count(),
    lambda: range(10**12),
    lambda: {"a": 1}.items(),
    lambda: print,
    lambda: int,
    lambda: ...,
    lambda: 1j,
    lambda: 10**5000,
    lambda: -(10**400),
    lambda: decimal.Decimal("0.5"),
    lambda: fractions.Fraction(1, 3),
    lambda: np.float16(0.5),
    lambda: np.int8(1),
    lambda: np.bool_(True),
    lambda: np.str_("x"),
    lambda: np.datetime64("2020-01-01"),
    lambda: np.array(3),
    lambda: np.array(None),
    lambda: np.array("x"),
    lambda: np.array([1, 2]),
    lambda: np.array([1.5, 2]),
    lambda: np.array([True, False]),
    lambda: np.array(["a", "b"]),
    lambda: np.array([1, "a", None], object),
    lambda: np.empty((0,), np.int64),
    lambda: np.empty((3, 0), np.int64),
    lambda: np.zeros((2, 2, 2), np.int64),
    lambda: np.array([2**63], np.uint64),
    lambda: np.array([1, 2], ">i8"),
    lambda: np.asfortranarray(np.ones((3, 4), np.int64)),
    lambda: np.broadcast_to(np.int64(1), (10**5, 10**7)),
    lambda: np.broadcast_to(np.int8(1), (10**6, 10**6)),
    lambda: np.ma.masked_array([1, 2], [0, 1]),
    lambda: np.array([(1, 2.0)], "i4,f4"),
)

_LOADING = {
    "path": (None, 3, "", "nowhere", "\0", "x" * 5000, "\ud800", b"x", "/dev/null", []),
    "providers": ("x", 3, [], [3], ["x"], [None], {"a": 1}, [("CPUExecutionProvider", 3)], "CPU"),
    "threads": ("x", 0, -1, 10**9, True, 2.5, [1]),
    "check": (3, None, "yes"),
}


def loading(random, path):
    """Arguments of runtime.load, one of them bad."""
    name = pick(random, tuple(_LOADING))
    bad = pick(random, _LOADING[name]) if random.random() < 0.6 else anything(random)
    return {"path": path, "threads": 1} | {name: bad}


_IDS = (
    *([5], [5, 6, 7], (4, 9), [[5, 6], [7]], [[5], [6, 7, 8], [9, 9]]),
    *(np.array([5, 6]), np.array([[5, 6, 7], [8, 9, 10]], np.int32), np.array([[3]], np.uint8)),
)
_BAD_PROMPTS = (
    *(None, 3, 2.5, True, [], [[]], [None], [[None]], [[1], []], {"a": 1}, set(), {5}),
    *("", " ", "\0", "a\0b", "\ud800", ["a", "\udfff"], ["a", None], ["a", 3], [["a"]], [3, "a"]),
    *([-1], [10**6], [2**63], [2**64], [-(2**63)], [[2**31]], [1.0], [True], [[1, 2], 3]),
    *([[[1]]], [[1, [2]]], [float("nan")], "x" * 900, ["the cat"] * 40, [5] * 900),
    *(np.array([[5, 6], [7, 8]]).T, np.array([5, 6])[::-1], np.uint64([7, 2**63])),
)
_MASKS = (
    *(None, None, [[1, 1]], [1, 1], [[0, 1]], np.ones((2, 3)), np.ones((2, 3), int)),
    *(np.ones((2, 3), bool), [[1, 0]], [[0, 0]], [[2, 1]], [[-1, 1]], "11", 3),
)


def prompt(random, bad=False):
    """A prompt for generate."""
    if bad:
        return anything(random) if random.random() < 0.4 else pick(random, _BAD_PROMPTS)
    share = random.random()
    if share < 0.4:
        return pick(random, TEXTS)
    return list(TEXTS[:2]) if share < 0.5 else pick(random, _IDS)


def mask(random):
    """An attention_mask that mostly does not fit."""
    return anything(random) if random.random() < 0.2 else pick(random, _MASKS)


_EVERY_WORD = [[token] for token in range(_BYTE_LEVEL.get_vocab_size())]
_STOPS = ("", [""], [3], ["x" * 10**7], ["\ud800"], ["a"] * 10**5)
# name -> values that are good (where others allow it), and values that look so.
_GENERATION = {
    "max_new_tokens": ((1, 2, 5, 9), (0, -1, 10**6, 10**12, 10**30, 2.0, True, "5")),
    "max_length": ((20, 30), (0, 1, 2, 10**12, "x", 1.5)),
    "min_new_tokens": ((0, 1, 3), (10**6, 10**12, -1, 0.5)),
    "min_length": ((0, 2), (10**9, -1, "0")),
    "repetition_penalty": ((1.0, 1.3, 0.8), (1e-300, 1e300, 0, -1, float("nan"), 1e-9, 1e9)),
    "no_repeat_ngram_size": ((0, 1, 2), (10**30, 2**31, -1, 1.5)),
    "encoder_no_repeat_ngram_size": ((0, 2), (10**12, 2**31 - 1, -1)),
    "bad_words_ids": (
        ([[5]], [[6, 7], [8]], np.array([[5, 6]])),
        (
            [[]],
            [],
            [5],
            [[283]],
            [[-1]],
            [[1.5]],
            [[[1]]],
            "x",
            3,
            [[i] for i in range(283)],
            [None],
        ),
    ),
    "renormalize_logits": ((True, False), (1, "no", None)),
    "stop_strings": (
        ("e", ["a", "the"]),
        ("", [""], [3], ["x" * 10**7], ["\ud800"], ["a"] * 10**5),
    ),
    "seed": ((0, 7), (2**200, -1, 1.5, "x", True)),
    "eos_token_id": ((0, [3, 5]), (-1, 10**6, 2**31, 2**64, "x", [None], list(range(283)))),
    "pad_token_id": ((1,), (-1, 10**6, 2**63, [1], "x")),
    "decoder_start_token_id": ((1,), (-1, 10**6, "x", [1])),
    "forced_bos_token_id": ((5,), (-1, 283, 2**63, [5])),
    "forced_eos_token_id": ((0, [3]), (-1, 283, "x", [None], 2**70)),
    "num_beams": ((2, 3), (0, 10**9, 10**12, 2**63, 10**30, 40, 2.0, "2", True)),
    "do_sample": ((True,), (1, "yes", 0)),
}
_SAMPLING = {
    "temperature": ((0.7, 1.5), (1e-300, 1e-9, 1e9, 1e300, 0, -1, float("nan"), float("inf"))),
    "top_k": ((0, 1, 5, 1000), (1.5, -1, 10**30, "5")),
    "top_p": ((0.5, 0.0, 1.0), (1.1, -0.1, float("nan"), 1e-300)),
    "min_p": ((0.0, 0.1, 1.0), (2, -1, float("nan"))),
}
_BEAMS = {
    "length_penalty": ((1.0, 2.0, 0.0, -1.0), (1e308, -1e308, 1000, -1000, float("inf"), 10**400)),
    "early_stopping": ((True, False, "never"), ("always", 1, np.array([1]))),
}
_OF_ENCODERS = ("encoder_no_repeat_ngram_size", "decoder_start_token_id")
_UNKNOWN = (
    "special_tokens",
    "as_text",
    "has_encoder",
    "file",
    "beams",
    "x" * 10**4,
    "attention_mask",
)


def settings(random, task, bad=False):
    """Settings of a generation; one of them may be bad."""
    chosen = {"max_new_tokens": pick(random, _GENERATION["max_new_tokens"][0])}
    names = [n for n in _GENERATION if random.random() < 0.08]
    if task != "seq2seq_lm":
        names = [n for n in names if n not in _OF_ENCODERS]
    chosen |= {name: pick(random, _GENERATION[name][0]) for name in names}
    if chosen.get("do_sample"):
        chosen |= {n: pick(random, v[0]) for n, v in _SAMPLING.items() if random.random() < 0.4}
    if chosen.get("num_beams", 1) > 1:
        chosen |= {n: pick(random, v[0]) for n, v in _BEAMS.items() if random.random() < 0.4}
    if "max_length" in chosen or random.random() < 0.05:
        del chosen["max_new_tokens"]
    if bad and random.random() < 0.06:
        return chosen | {pick(random, _UNKNOWN): anything(random)}
    if bad:
        known = {**_GENERATION, **_SAMPLING, **_BEAMS}
        name = pick(random, tuple(known))
        chosen |= {"do_sample": True} if name in _SAMPLING else {}
        chosen |= {"num_beams": 2} if name in _BEAMS else {}
        good, wrong = known[name]
        is_near = random.random() < 0.6
        chosen[name] = pick(random, wrong) if is_near else anything(random, pick(random, good))
    return chosen


_OPTIONS = {
    "batch_size": ((1, 2, 32), (0, -1, True, 10**12, "x", 1.5, None)),
    "truncate": ((True, False), (1, "x", None)),
    "normalized": ((None, True, False), (1, "x")),
    "top_k": ((None, 1, 2, 99), (0, -1, "x", 2.5, True)),
    "aggregation": (("first", "average", "max"), ("last", None, 3, ["first"])),
    "source": ((None, "en"), (3, "\ud800", "xx", ["en"])),
    "target": (("de", "fr"), (3, "", "xx", None)),
    "stream": ((False, True), (1, "x", None)),
}
_TAKES = {
    "embed": ("batch_size", "normalized", "truncate"),
    "classify": ("batch_size", "top_k", "truncate"),
    "tag": ("batch_size", "aggregation", "truncate"),
    "translate": ("batch_size", "source", "target", "truncate"),
    "summarize": ("batch_size", "truncate"),
    "chat": ("stream",),
}


def options(random, method, task_names, bad=False):
    """Keyword arguments of a method, one of them bad if asked for."""
    names = [n for n in _TAKES.get(method, ()) if n == "target" or random.random() < 0.3]
    if not task_names:
        names = [n for n in names if n not in ("source", "target")]
    chosen = {name: pick(random, _OPTIONS[name][0]) for name in names}
    if bad and method in _TAKES:
        name = pick(random, _TAKES[method])
        good, wrong = _OPTIONS[name]
        is_near = random.random() < 0.6
        chosen[name] = pick(random, wrong) if is_near else anything(random, pick(random, good))
    return chosen


_BAD_TEXTS = (
    *(None, 3, [], [None], ["a", 3], [["a"]], {"a": 1}, set(), "", [""], "\ud800", ["\udfff", "a"]),
    *("\0", "a" * 900, ["a"] * 100, "the " * 400, (x for x in "ab"), ("a", "b"), np.array(["a"])),
)


def texts(random, bad=False):
    """Texts for embed and its like."""
    if bad:
        return anything(random) if random.random() < 0.4 else pick(random, _BAD_TEXTS)
    return pick(random, (TEXTS[0], list(TEXTS), [TEXTS[1]], tuple(TEXTS[:2]), "the cat"))


_USER = {"role": "user", "content": TEXTS[0]}
_BAD_MESSAGES = (
    *(None, [], {}, 3, [{}], [None], [[]], ["a"], _USER, [{"role": "user"}], [{"content": "a"}]),
    *([{"role": 1, "content": "a"}], [{"role": "user", "content": None}], [{"role": None} | _USER]),
    *([{"role": "user", "content": [{"type": "text", "text": "a"}]}], [_USER, 3], [{1: 2}]),
    *([{"role": "user", "content": "\ud800"}], [{"role": "\udfff", "content": "a"}], "\ud800"),
    *([{"role": "user", "content": 10**5000}], [{"role": "user", "content": "x" * 20_000}]),
    *(
        [_USER | {"tool_calls": object()}],
        [{"role": "user", "content": float("nan")}],
        "",
        (_USER,),
    ),
)


def messages(random, bad=False):
    """A conversation."""
    if bad:
        return anything(random) if random.random() < 0.4 else pick(random, _BAD_MESSAGES)
    answer = {"role": "assistant", "content": TEXTS[1]}
    return pick(random, (TEXTS[0], [_USER], [_USER, answer, _USER]))


def feeds(random, session, changes=0):
    """Inputs of a graph by name, with so many changes."""
    sizes = {"batch_size": 2, "sequence_length": 3, "past_sequence_length": 0}
    inputs = {value.name: _array(random, value, sizes) for value in session.get_inputs()}
    for _ in range(changes):
        name = pick(random, tuple(inputs))
        action = random.random()
        if action < 0.1:
            del inputs[name]
        elif action < 0.15:
            inputs[pick(random, ("x", "logits", "input_ids", 3, None, ""))] = anything(random)
        elif action < 0.45 or not _is_small_array(inputs[name]):
            inputs[name] = anything(random)
        else:
            inputs[name] = pick(random, _CHANGES)(random, inputs[name])
        if not inputs:
            break
    return inputs


def _is_small_array(x):
    return isinstance(x, np.ndarray) and x.ndim > 0 and x.size <= 10**6


def _array(random, value, sizes):
    shape = [n if isinstance(n, int) else sizes.get(n, 3) for n in value.shape]
    if value.name.endswith("mask"):
        return np.ones(shape, np.int64)
    if "int" in value.type:
        return random.integers(2 if "type" in value.name else 5, size=shape)
    kind = np.float16 if "16" in value.type else np.float32
    return random.normal(size=shape).astype(kind)


_CHANGES = (
    lambda random, x: x.astype(
        pick(random, ("f2", "f4", "f8", "i4", ">i8", "u8", "i1", "bool", "O", "U8", "c8"))
    ),
    lambda random, x: x[None],
    lambda random, x: x[..., :1],
    lambda random, x: x[:1],
    lambda random, x: x[:0],
    lambda random, x: x[:, :0] if x.ndim > 1 else x,
    lambda random, x: x.T,
    lambda random, x: np.asfortranarray(x),
    lambda random, x: x[::-1],
    lambda random, x: np.concatenate([x, x]),
    lambda random, x: np.concatenate([x, x], axis=-1),
    lambda random, x: np.repeat(x, 90, axis=min(1, x.ndim - 1)),
    lambda random, x: x.tolist(),
    lambda random, x: x.ravel(),
    lambda random, x: x.flat[0] if x.size else x,
    lambda random, x: x + pick(random, (1, 2, 100, 10**6, 2**31, 2**40)),
    lambda random, x: x - pick(random, (1, 2, 10**6, 2**40)),
    lambda random, x: np.full_like(x, 0),
    lambda random, x: np.where(x == x, np.nan, x) if x.dtype.kind == "f" else -x,
    lambda random, x: np.broadcast_to(x[:1], (10**7, *x.shape[1:])) if x.size else x,
)
