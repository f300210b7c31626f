"""Whatever the runtime is given, it answers in the documented form, the same again, or refuses."""

import contextlib
import io
import itertools
import sys

import numpy as np
import pytest

from keras_seqattn import runtime
from keras_seqattn.cli import main
from tests.fuzz import inputs
from tests.fuzz.harness import attempt
from tests.fuzz.mutations import pick

pytestmark = [pytest.mark.fuzz, pytest.mark.backend_free]

# Beyond so many tokens a stream is begun, and not read to its end.
_FEW, _PIECES = 300, 6


def runtime_case(random, folder):
    """A method of a bundle with none, one or two arguments that are not as they should be."""
    kind = pick(random, inputs.KINDS)
    model = inputs.bundle(kind, folder.parent)
    if random.random() < 0.04:
        loaded = attempt(runtime.load, **inputs.loading(random, folder.parent / kind))
        assert loaded.task == model.task
        return "load"
    method = pick(random, inputs.METHODS.get(model.task, ("run",)))
    if random.random() < 0.04:
        method = pick(random, sorted(set().union(*inputs.METHODS.values())))
    bad = int(random.integers(3))
    if method == "run":
        given = inputs.feeds(random, model.session, bad)
        outputs = attempt(model.run, given)
        _check_outputs(model, outputs, finite=bad == 0)
        _check_same(outputs, attempt(model.run, given))
        return "run"
    places = {"inputs": 0, "options": 0}
    for _ in range(bad):
        places[pick(random, tuple(places))] += 1
    arguments, settings = _arguments(random, model, method, places)
    if not _is_short(settings) and method in ("generate", "stream"):
        method = "stream"
        for name in ("num_beams", "length_penalty", "early_stopping"):
            settings.pop(name, None)
    elif not _is_short(settings):
        return "skipped"
    got = attempt(_call, model, method, arguments, settings)
    _CHECKS[method](model, arguments[0], got, settings)
    # A draw without a seed is another one each time.
    if not settings.get("do_sample") or settings.get("seed") is not None:
        _check_same(got, attempt(_call, model, method, arguments, settings))
    return method


def _arguments(random, model, method, places):
    is_bad = places["inputs"] > 0
    is_wrong = places["options"] > 0 and random.random() < 0.5
    options = inputs.options(random, method, "task_specific_params" in model.config, is_wrong)
    if method in ("generate", "stream"):
        arguments = [inputs.prompt(random, is_bad)]
        if random.random() < (0.3 if is_bad else 0.02):
            options["attention_mask"] = inputs.mask(random)
    elif method == "chat":
        arguments = [inputs.messages(random, is_bad)]
    else:
        arguments = [inputs.texts(random, is_bad)]
        if method == "classify" and random.random() < 0.3:
            arguments.append(inputs.texts(random, is_bad))
    if method in ("generate", "stream", "chat", "translate", "summarize"):
        settings = inputs.settings(random, model.task, places["options"] > 0)
        options = settings | options
    return arguments, options


def _is_short(settings):
    """Whether it ends soon, as far as lengths tell."""
    lengths = (settings.get("max_new_tokens"), settings.get("max_length"))
    return not any(isinstance(n, (int, float)) and n > _FEW for n in lengths)


def _call(model, method, arguments, settings):
    got = getattr(model, method)(*arguments, **settings)
    if method == "stream" or (method == "chat" and settings.get("stream") is True):
        return list(itertools.islice(got, _PIECES))
    return got


def _check_outputs(model, outputs, finite):
    assert list(outputs) == [value.name for value in model.session.get_outputs()]
    for name, array in outputs.items():
        assert isinstance(array, np.ndarray), name
        assert not finite or np.isfinite(array).all(), f"{name} is not finite"


def _check_generated(model, prompt, got, settings):
    is_batch = not isinstance(prompt, str) and np.ndim(prompt[0]) > 0
    if isinstance(prompt, str) or isinstance(prompt[0], str):
        is_batch = not isinstance(prompt, str)
        texts = got if is_batch else [got]
        assert all(isinstance(text, str) and text.encode("utf-8") is not None for text in texts)
    elif settings.get("as_text") is True:
        assert isinstance(got, list if is_batch else str)
    else:
        for row in got if is_batch else [got]:
            ids = np.asarray(row)
            assert ids.dtype == np.int64 and ids.ndim == 1 and len(ids)
            assert (ids >= 0).all() and (ids < model.config["vocab_size"]).all()
    assert not is_batch or len(got) == len(prompt)


def _check_pieces(model, prompt, got, settings):
    assert isinstance(got, list)
    for piece in got:
        assert isinstance(piece, (str, int, list, np.ndarray)), piece
        assert not isinstance(piece, int) or 0 <= piece < model.config["vocab_size"]


def _check_texts(model, given, got, settings):
    if settings.get("stream"):
        return _check_pieces(model, given, got, settings)
    answers = [got] if isinstance(given, str) or settings.get("stream") is False else got
    answers = answers if isinstance(answers, list) else [answers]
    assert all(isinstance(answer, str) for answer in answers)


def _check_vectors(model, given, got, settings):
    assert got.dtype == np.float32 and np.isfinite(got).all()
    assert got.ndim == (1 if isinstance(given, str) else 2)


def _check_labels(model, given, got, settings):
    results = [got] if isinstance(given, str) else got
    for result in results:
        labels = [result] if isinstance(result, dict) else result
        assert isinstance(labels, list) and labels
        for label in labels:
            assert isinstance(label["label"], str) and np.isfinite(label["score"])


def _check_entities(model, given, got, settings):
    results = [(given, got)] if isinstance(given, str) else zip(given, got, strict=True)
    for text, entities in results:
        for entity in entities:
            assert text[entity["start"] : entity["end"]] == entity["text"]
            assert np.isfinite(entity["score"])


_CHECKS = {
    "generate": _check_generated,
    "stream": _check_pieces,
    "chat": _check_texts,
    "translate": _check_texts,
    "summarize": _check_texts,
    "embed": _check_vectors,
    "classify": _check_labels,
    "tag": _check_entities,
}


def _check_same(first, second):
    np.testing.assert_equal(second, first)


_WORDS = (
    *("the cat", "", "-", "--", "x", "\ud800", "\udcff", "a\nb", "\x1b[0m", "0", "-1", "1e400"),
    *("nan", "inf", "1.5", str(10**30), "0.5", "2", "3", "10", "é語"),
)
_VALUES = (*_WORDS, "1" * 5000, "x" * 10**5)
_FLAGS = (
    *("--max-new-tokens", "--min-new-tokens", "--temperature", "--top-k", "--top-p", "--min-p"),
    *("--repetition-penalty", "--no-repeat-ngram-size", "--stop", "--seed", "--num-beams"),
    *("--length-penalty", "--do-sample", "--system", "--source", "--target", "--output", "--help"),
    *("--lengths", "--against", "--quiet", "--version", "--nonsense"),
)
_COMMANDS = {
    "generate": ("llama", "transfo_xl", "t5"),
    "chat": ("llama", "lfm2"),
    "translate": ("t5",),
    "summarize": ("t5", "bart"),
    "embed": ("bert", "llama-embedding"),
    "inspect": inputs.KINDS,
    "verify": inputs.KINDS,
    "export": inputs.KINDS,
}


def command_case(random, folder):
    """A command with arguments of which some are not as they should be, and any standard input."""
    arguments = _command(random, folder)
    out = io.TextIOWrapper(io.BytesIO(), "utf-8")
    err = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    given, before = _standard_input(random), sys.stdin
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.stdin = given
        try:
            code = main(arguments)
        except SystemExit as ended:
            code = ended.code
        finally:
            sys.stdin = before
    err.flush()
    lines = err.buffer.getvalue().decode().splitlines()
    lines = [line for line in lines if not line.startswith("warning: ")]
    if code:
        assert len(lines) == 1 and lines[0].startswith("error: "), (arguments, lines)
        assert len(lines[0]) < 1100 and "internal error" not in lines[0], (arguments, lines)
        return "refused"
    return arguments[0]


def _command(random, folder):
    name = pick(random, tuple(_COMMANDS))
    kind = pick(random, _COMMANDS[name] if random.random() < 0.9 else inputs.KINDS)
    inputs.bundle(kind, folder.parent)
    (folder / "file").write_bytes(random.bytes(100))
    place = str(folder.parent / kind)
    if random.random() < 0.15 or name == "export":
        other = ("", "nowhere", str(folder), str(folder / "file"), "a\0b", "\udcff", "x" * 5000)
        place = pick(random, (*other, "\ud800", "/dev/null", "/proc/self/mem"))
    arguments = [name, place]
    if name == "export":
        arguments.append(pick(random, (str(folder / "out"), str(folder), "", "\0")))
    if name not in ("inspect", "verify", "chat", "export"):
        count = 1 if name == "generate" else int(random.integers(3))
        good = random.random() < 0.7
        arguments += ["the cat" if good else pick(random, _WORDS) for _ in range(count)]
    if name in ("generate", "chat", "translate", "summarize"):
        arguments += ["--max-new-tokens", "3"]
    for _ in range(int(random.integers(3))):
        flag = pick(random, _FLAGS)
        if flag == "--max-new-tokens":
            arguments += [flag, pick(random, ("0", "x", "-3", "1e3", str(10**30), "2"))]
        elif flag == "--output":
            outputs = (str(folder / "v.npy"), str(folder), "x", "/nowhere/v.npy", "\0.npy", "")
            arguments += [flag, pick(random, outputs)]
        else:
            arguments += [flag, *([pick(random, _VALUES)] if random.random() < 0.85 else [])]
    return arguments


def _standard_input(random):
    share = random.random()
    if share < 0.1:
        return None
    data = b"the cat\n\nAnna\n" if share < 0.5 else random.bytes(int(random.integers(40)))
    stream = io.TextIOWrapper(io.BytesIO(data), "utf-8")
    if share > 0.9:
        stream.close()
    return stream


def test_runtime(fuzz):
    fuzz(runtime_case, short=150)


def test_command_line(fuzz):
    fuzz(command_case, short=60)
