"""One loaded model in many threads, in streams that are read in turns, and in forked processes."""

import asyncio
import concurrent.futures
import gc
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_seqattn import onnx, runtime
from keras_seqattn.errors import InputError
from keras_seqattn.runtime.decoder import OrtDecoder
from keras_seqattn.runtime.encoder_decoder import OrtEncoderDecoder

from . import sharing

pytestmark = pytest.mark.backend_free


@pytest.mark.parametrize("kind", sharing.KINDS)
def test_threads_get_what_one_alone_gets(kind):
    calls = sharing.draw_calls(kind, np.random.default_rng(7), count=12)
    sharing.check_threads(sharing.load(kind), calls, threads=6)


@pytest.mark.parametrize("kind", sharing.GENERATING)
def test_interleaved_streams(kind):
    random = np.random.default_rng(11)
    for _ in range(3):
        sharing.check_interleaved(sharing.load(kind), random)


@pytest.mark.parametrize("kind", ["growing", "shared", "states", "t5"])
def test_abandoned_streams_leave_no_decoder_behind(kind):
    model, random = sharing.load(kind), np.random.default_rng(13)
    for _ in range(40):
        sharing.abandon(model, random)
    # Many at once as well, most of which are not kept either.
    streams = [model.stream([5, 6], max_new_tokens=9, min_new_tokens=9) for _ in range(20)]
    list(map(next, streams))
    del streams
    gc.collect()
    assert len(_decoders_of(model)) <= 3  # two idle ones, and the pool's example


def _decoders_of(model):
    drivers = [x for x in gc.get_objects() if type(x) in (OrtDecoder, OrtEncoderDecoder)]
    return [x for x in drivers if model.sessions[-1] in vars(x).values()]


def test_an_error_between_two_steps_spoils_no_later_generation():
    model = sharing.load("shared")
    wanted = model.generate([5, 6, 7], max_new_tokens=8)
    pool = model._parts["decoders"]
    for _ in range(2):
        with pytest.raises(RuntimeError), pool.lend() as decoder:
            decoder.start(3, 400)
            raise RuntimeError
        assert decoder not in pool._idle
        assert model.generate([5, 6, 7], max_new_tokens=8) == wanted


def test_parts_are_made_once():
    with tempfile.TemporaryDirectory() as folder:
        onnx.export(sharing.build("embedding"), f"{folder}/bundle", verify=False)
        model, made = runtime.load(f"{folder}/bundle"), []

    def make():
        time.sleep(0.05)  # the others arrive meanwhile
        made.append("part")

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: model._part("part", make), range(6)))
    assert made == ["part"]


def test_lengths_to_cut_to_do_not_mix():
    tokenizer = sharing.load("tags").tokenizer
    texts = ["w5 w6 w7 w8 w9 w10 w11 w12"] * 50

    def encode(limit):
        encodings = tokenizer.encode_batch(texts, texts, max_length=limit)
        return [len(encoding.ids) for encoding in encodings]

    calls = [lambda _, limit=limit: encode(limit) for limit in (None, 5, 9, 13)] * 2
    assert [call(None)[0] for call in calls[:4]] == [19, 5, 9, 13]
    sharing.check_threads(None, calls, threads=4)


def test_the_example_s_asyncio_streams_can_be_cancelled():
    path = Path(__file__).parents[2] / "examples" / "serve.py"
    spec = importlib.util.spec_from_file_location("serve", path)
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    model = sharing.load("shared")
    wanted = model.generate([5, 6], max_new_tokens=30, min_new_tokens=30)

    async def read(got, count):
        stream = model.stream([5, 6], max_new_tokens=count, min_new_tokens=count)
        async for token in serve.pieces(stream):
            got.append(token)

    async def many():
        results = [[] for _ in range(6)]
        counts = (250, 30) * 3
        tasks = [asyncio.create_task(read(*task)) for task in zip(results, counts, strict=True)]
        while not all(results[::2]):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(end, asyncio.CancelledError) for end in ends] == [True, False] * 3
        return results

    for got in asyncio.run(many())[1::2]:
        assert got == wanted
    gc.collect()
    assert len(_decoders_of(model)) <= 3


FORKED = """
import multiprocessing, sys
from keras_seqattn import runtime

path, calls = sys.argv[1], sys.argv[2:]
model = runtime.load(path)
stream = model.stream("w5 w6", max_new_tokens=8) if "stream" in calls else None
if stream:
    next(stream)

def call(name):
    if name == "stream":
        return list(stream)
    if name == "load":
        return runtime.load(path).task
    return getattr(model, name)({} if name == "run" else "w5 w6 w7")

def work(queue):
    for name in calls:
        try:
            queue.put(repr(call(name)))
        except Exception as error:
            queue.put(f"{type(error).__name__}: {error}")

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=work, args=(queue,))
process.start()
for name in calls:
    print(name, queue.get(timeout=60))
process.join(timeout=60)
print("exit", process.exitcode)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize(
    "kind, calls",
    [
        ("shared", ["generate", "stream", "chat", "run"]),
        ("t5", ["generate", "stream", "translate", "summarize"]),
        ("embedding", ["embed", "run"]),
    ],
)
def test_a_forked_process_loads_its_own(kind, calls, tmp_path):
    onnx.export(sharing.build(kind), tmp_path / "bundle", target="ort", verify=False)
    command = [sys.executable, "-c", FORKED, tmp_path / "bundle", *calls, "load"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, cwd=root
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "exit 0", done.stderr
    assert lines[-2] == f"load '{sharing.KINDS[kind][1]}'"
    for name, line in zip(calls, lines[:-2], strict=True):
        assert line.startswith(f"{name} BundleError: ") and line.endswith("after the fork"), line


@pytest.mark.parametrize("layer", [keras.layers.LSTM, keras.layers.GRU])
@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (0, 0, 3)])
def test_batch_and_length_of_zero_are_refused(layer, shape, tmp_path):
    """onnxruntime's own LSTM and GRU end the process."""
    inputs = keras.Input((None, 3), name="x")
    model = keras.Model(inputs, keras.layers.Bidirectional(layer(4))(inputs))
    onnx.export(model, tmp_path / "bundle", verify=False)
    bundle = runtime.load(tmp_path / "bundle")
    with pytest.raises(InputError, match=r"x is \(.*: give it at least one row and one element"):
        bundle.run(x=np.zeros(shape, np.float32))
    assert bundle.run(x=np.zeros((1, 1, 3), np.float32))


def test_a_driver_refuses_a_batch_of_zero():
    driver = sharing.load("recurrent")._generator().decoder
    with pytest.raises(InputError, match=r"input_ids is \(0, 5\)"):
        driver.encode(np.zeros((0, 5), np.int64), np.zeros((0, 5), np.int64))


@pytest.mark.parametrize("kind", ["recurrent", "shared", "embedding"])
def test_nothing_to_do_is_refused(kind):
    model = sharing.load(kind)
    methods = ["embed"] if kind == "embedding" else ["generate", "stream"]
    if kind == "recurrent":
        methods += ["translate", "summarize"]
    for method in methods:
        for nothing in ([], (), [[]], [[], []], np.zeros((0, 4), int), np.zeros((2, 0), int)):
            with pytest.raises(InputError):
                getattr(model, method)(nothing)


def test_the_past_of_a_cache_may_be_empty():
    model = sharing.load("growing")
    feeds = {"input_ids": [[5, 6]], "attention_mask": [[1, 1]]}
    pasts = [value for value in model.session.get_inputs() if value.name.startswith("past")]
    empty = {value.name: np.zeros((1, 2, 0, 16), np.float32) for value in pasts}
    assert model.run({**feeds, **empty})["logits"].shape == (1, 2, 97)
    with pytest.raises(InputError, match="at least one row"):
        model.run({**feeds, **empty, pasts[0].name: np.zeros((0, 2, 0, 16), np.float32)})
