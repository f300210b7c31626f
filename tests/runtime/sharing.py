"""One tiny loaded model for every kind of past, and calls that threads may make on it at once."""

import concurrent.futures
import functools
import json
import tempfile
import threading

import numpy as np
import tokenizers

from keras_seqattn import models, onnx, runtime
from tests.helpers import randomise
from tests.onnx import tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(93))]
ROLLING = tiny.LLAMA | {"sliding_window": 5, "rolling_cache": True}
TAGGER = tiny.BERT | {"num_labels": 5, "id2label": {str(i): f"B-{i}" for i in range(5)}}
# name -> (family, task, configuration, target)
KINDS = {
    "growing": ("llama", "causal_lm", tiny.LLAMA, "portable"),
    "shared": ("llama", "causal_lm", tiny.LLAMA, "ort"),
    "rolling": ("mistral", "causal_lm", ROLLING, "ort"),
    "states": ("lfm2", "causal_lm", tiny.LFM2, "ort"),
    "t5": ("t5", "seq2seq_lm", tiny.T5, "ort"),
    "bart": ("bart", "seq2seq_lm", tiny.BART, "portable"),
    "recurrent": ("rnn_seq2seq", "seq2seq_lm", tiny.RECURRENT | {"num_hidden_layers": 2}, "ort"),
    "embedding": ("bert", "embedding", tiny.BERT, "ort"),
    "classes": ("bert", "sequence_classification", tiny.BERT | {"num_labels": 3}, "portable"),
    "tags": ("bert", "token_classification", TAGGER, "ort"),
}
GENERATING = [name for name, (_, task, *_) in KINDS.items() if task.endswith("_lm")]
_SETTINGS = (
    {"do_sample": False},
    {"do_sample": True, "seed": 5, "temperature": 1.3},
    {"num_beams": 3},
    {"repetition_penalty": 1.4},
)


def build(kind):
    """The Keras model of a kind, with a tokenizer."""
    family, task, config, _ = KINDS[kind]
    model = randomise(models.build(family, task=task, **config), seed=3)
    model.assets = {
        "tokenizer.json": _tokenizer().to_str().encode(),
        "tokenizer_config.json": json.dumps(
            {
                "pad_token": "[PAD]",
                "model_max_length": 13,
                "chat_template": "{% for m in messages %}{{ m['content'] }} {% endfor %}",
            }
        ).encode(),
    }
    return model


@functools.cache
def load(kind):
    """The model of a kind as the runtime loads it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = f"{folder}/bundle"
        onnx.export(build(kind), path, target=KINDS[kind][-1], verify=False)
        return runtime.load(path)


def draw_calls(kind, random, count):
    """List of functions of the model of a kind, whose results can be compared by `equal`."""
    draw = {"causal_lm": _answer, "seq2seq_lm": _rewrite}.get(KINDS[kind][1], _encode)
    return [draw(random) for _ in range(count)]


def check_threads(model, calls, threads, each=None):
    """Each thread makes `each` calls (all), beginning with another; all get what one alone gets."""
    expected = [call(model) for call in calls]
    start = threading.Barrier(threads)

    def work(number):
        start.wait()
        order = np.roll(np.arange(len(calls)), -number)[:each]
        return [(i, calls[i](model)) for i in order]

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for results in pool.map(work, range(threads)):
            for i, result in results:
                assert equal(result, expected[i]), (i, result, expected[i])


def check_interleaved(model, random, streams=3):
    """Streams that are read in turns give what each gives alone."""
    prompts = [ids(random, 1) for _ in range(streams)]
    steps = random.integers(3, 12, streams).tolist()
    expected = [
        model.generate(p, max_new_tokens=n, min_new_tokens=n).tolist()
        for p, n in zip(prompts, steps, strict=True)
    ]
    running = {
        i: model.stream(prompts[i], max_new_tokens=steps[i], min_new_tokens=steps[i])
        for i in range(streams)
    }
    got = [[] for _ in prompts]
    while running:
        i = int(random.choice(list(running)))
        token = next(running[i], None)
        if token is None:
            del running[i]
        else:
            got[i].append(token)
    assert got == expected


def abandon(model, random):
    """Begin a stream and leave it: closed, forgotten, in a cycle of references, or by an error."""
    stream = model.stream(ids(random, 1), max_new_tokens=9, min_new_tokens=9)
    next(stream)
    how = random.integers(4)
    if how == 0:
        stream.close()
    elif how == 1:
        cycle = [stream]
        cycle.append(cycle)
    elif how == 2:
        try:
            stream.throw(KeyboardInterrupt)
        except KeyboardInterrupt:
            pass


def equal(one, other):
    """Whether two results are the same to the last bit."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[n], other[n]) for n in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def ids(random, rows=None):
    """int64 (t,) for one row, else (b, t)."""
    length = int(random.integers(1, 20))
    drawn = random.integers(4, 90, (rows or 1 + int(random.integers(3)), length))
    return drawn[0] if rows == 1 else drawn


def texts(random, longest=30):
    """List of one to four texts."""
    sizes = random.integers(1, longest, 1 + int(random.integers(4)))
    return [" ".join(random.choice(WORDS[4:], size)) for size in sizes]


def _settings(random):
    count = int(random.integers(1, 12))
    chosen = _SETTINGS[random.integers(len(_SETTINGS))]
    return {"max_new_tokens": count, "min_new_tokens": count // 2, **chosen}


def _answer(random):
    settings, prompt, text = _settings(random), ids(random), texts(random)[0]
    streaming = {name: x for name, x in settings.items() if name != "num_beams"}
    return _one_of(
        random,
        lambda model: model.generate(prompt, **settings),
        lambda model: list(model.stream(prompt, **streaming)),
        lambda model: list(model.stream(text, **streaming)),
        lambda model: model.chat(text, **settings),
    )


def _rewrite(random):
    settings, prompt, several = _settings(random), ids(random), texts(random)
    streaming = {name: x for name, x in settings.items() if name != "num_beams"}
    return _one_of(
        random,
        lambda model: model.generate(prompt, **settings),
        lambda model: list(model.stream(prompt, **streaming)),
        lambda model: model.summarize(several, batch_size=2, **settings),
        lambda model: model.translate(several, batch_size=2, **settings),
    )


def _encode(random):
    """Texts that are cut, texts that are not, and the graph alone."""
    several, short, array = texts(random), texts(random, longest=9), ids(random)
    limit = int(random.integers(3, 9))
    feeds = {"input_ids": array, "attention_mask": np.ones_like(array)}
    feeds["token_type_ids"] = np.zeros_like(array)

    def encode(model):
        method = {"embedding": "embed", "sequence_classification": "classify"}.get(model.task)
        return getattr(model, method or "tag")

    return _one_of(
        random,
        lambda model: encode(model)(several, batch_size=2),
        lambda model: encode(model)(short, truncate=False),
        lambda model: [e.ids for e in model.tokenizer.encode_batch(several, max_length=limit)],
        lambda model: model.run(feeds),
    )


def _one_of(random, *calls):
    return calls[random.integers(len(calls))]


def _tokenizer():
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return backend
