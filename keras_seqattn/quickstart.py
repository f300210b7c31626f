"""The quickstart: exports two real checkpoints to ONNX, asks one a question, searches with one."""

import time
from pathlib import Path

import numpy as np

from keras_seqattn import models, onnx, runtime, samples
from keras_seqattn.arguments import flag
from keras_seqattn.errors import ExportError
from keras_seqattn.files import resolve
from keras_seqattn.progress import Steps

QUESTION = "What is the capital of France?"
QUERY = "How do I keep my bread from going stale?"
SENTENCES = (
    "Store a loaf in a paper bag inside a closed box, and freeze what you will not eat.",
    "Knead the dough for ten minutes, then let it rise in a warm place.",
    "Croissants are best on the morning they are baked.",
    "Keep cheese wrapped in waxed paper in the warmest part of the fridge.",
    "A sharp knife is safer than a blunt one.",
    "The train to the coast leaves every hour from platform four.",
    "Water the tomatoes in the evening, at the roots.",
    "The library opens at nine, except on Sundays.",
    "Change the oil of the car every fifteen thousand kilometres.",
    "A falling barometer means that rain is on its way.",
    "The second movement of the symphony is slow and quiet.",
    "Parliament will vote on the budget next week.",
)


def quickstart(output=None, quiet=False):
    """Export SmolLM2-135M-Instruct to int4 and all-MiniLM-L6-v2 to int8, verify both, and use both.

    Args:
        output: the folder for the bundles; None is the user's cache.
        quiet: bool, do not show the steps on standard error.

    Returns:
        tuple (answer, ranking): the text of the chat model, and the sentences, best match first.

    Raises:
        SeqAttnError: a model cannot be fetched, or an export does not agree with Keras.
    """
    flag(quiet, "quiet")
    output = samples.cache_dir() / "quickstart" if output is None else output
    output = Path(resolve(output, ExportError))
    steps = Steps(quiet)
    steps.say(f"Bundles go to {output}")
    decoder = _make(steps, "SmolLM2-135M-Instruct", samples.smollm2, output / "smollm2", "int4")
    encoder = _make(steps, "all-MiniLM-L6-v2", samples.minilm, output / "minilm", "int8")
    # Keras is not used from here on.
    return _ask(runtime.load(decoder)), _search(runtime.load(encoder), steps)


def _make(steps, name, find, bundle, precision):
    source = find()
    with steps(f"Load {name} into Keras"):
        model = models.load(source)
    with steps(f"Export and verify {name}, {precision}") as progress:
        report = onnx.export(model, bundle, precision=precision, progress=progress)
    steps.say(f"  {report.summary()}")
    return bundle


def _ask(model):
    print(f"\n> {QUESTION}")
    pieces, start, first = [], time.perf_counter(), None
    for piece in model.chat(QUESTION, stream=True, max_new_tokens=60):
        first = first or time.perf_counter()
        pieces.append(piece)
        print(piece, end="", flush=True)
    end = time.perf_counter()
    answer = "".join(pieces)
    # The first token waits for the whole prompt, so the rate counts only the other tokens.
    count = len(model.tokenizer.encode(answer, special_tokens=False)) - 1
    if count:
        rate, wait = count / (end - first), first - start
        print(f"\n({rate:.0f} tokens per second, the first after {wait:.2f} s)")
    return answer


def _search(model, steps):
    with steps(f"Embed {len(SENTENCES)} sentences"):
        vectors = model.embed(list(SENTENCES))
    scores = vectors @ model.embed([QUERY])[0]
    ranking = np.argsort(-scores)
    print(f"\n? {QUERY}")
    for i in ranking[:3]:
        print(f"{scores[i]:5.2f}  {SENTENCES[i]}")
    return [SENTENCES[i] for i in ranking]
