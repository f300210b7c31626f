"""A rolling window decodes for as long as one likes: memory and time per token, tokens compared.

Usage: python export/streaming.py [--tokens 50000] [--window 256] [--prefix 640] [--output FILE.md]

A small Mistral with new weights and a rolling cache is exported; a process without Keras decodes
with the bundle and notes the time of each token and its own memory. The first tokens are compared
with those of the same weights without any cache: a full pass over the whole text for each token.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROMPT = [1]
SEED = 0
MODEL = {
    "vocabulary_size": 512,
    "hidden_dim": 256,
    "intermediate_dim": 512,
    "num_layers": 4,
    "num_heads": 8,
    "num_key_value_heads": 2,
    "max_sequence_length": 1024,
    "tie_word_embeddings": True,
}
SETTINGS = {"do_sample": True, "seed": SEED, "pad_token_id": 0}
# Memory is read once in so many tokens.
EVERY = 50


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=50_000)
    parser.add_argument("--window", type=int, default=256, help="keys that a token attends to")
    parser.add_argument("--prefix", type=int, default=640, help="tokens to compare")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".md")
    )
    parser.add_argument(
        "--figure", type=pathlib.Path, default=ROOT / "docs" / "figures" / "streaming.png"
    )
    parser.add_argument("--decode", metavar="BUNDLE", help=argparse.SUPPRESS)
    arguments = parser.parse_args(arguments)
    if arguments.decode:
        print(json.dumps(decode(arguments.decode, arguments.tokens)))
        return
    with tempfile.TemporaryDirectory() as folder:
        reference = export_model(arguments.window, folder)
        found = _decode_apart(folder, arguments.tokens)
    count = min(arguments.prefix, arguments.tokens)
    equal = uncached_tokens(reference, count) == found["tokens"][:count]
    arguments.output.write_text(report(found, arguments.window, count, equal))
    print(arguments.output.read_text())
    draw(found, arguments.figure)
    if not equal:
        sys.exit("the tokens differ from those without a cache")


def export_model(window, folder):
    """Export the model; the same weights with a window but no cache that rolls are returned."""
    from keras_seqattn import models, onnx

    rolling, reference = (
        models.build("mistral", **MODEL, sliding_window=window, rolling_cache=rolls)
        for rolls in (True, False)
    )
    random = np.random.default_rng(SEED)
    for variable in rolling.weights:
        # Wide enough that each token depends on all of its window.
        if len(variable.shape) == 2:
            fan_in = variable.shape[-1 if "embeddings" in variable.path else 0]
            variable.assign(1.5 / fan_in**0.5 * random.standard_normal(variable.shape))
    reference.set_weights(rolling.get_weights())
    print(onnx.export(rolling, folder).summary())
    return reference


def _decode_apart(bundle, tokens):
    command = [sys.executable, __file__, "--decode", bundle, "--tokens", str(tokens)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def decode(bundle, tokens):
    """Decode with a bundle; what it took.

    Args:
        bundle: its folder.
        tokens: how many.

    Returns:
        dict of tokens (list of int), microseconds (list, each token's) and megabytes (list, the
        memory of this process after every `EVERY`-th token).
    """
    from keras_seqattn import runtime

    model = runtime.load(bundle, threads=1)
    # Written to before the start, so that what is noted does not add to the memory that is noted.
    ids, times = np.ones(tokens, int), np.ones(tokens + 1)
    memory = np.ones(tokens // EVERY)
    stream = model.stream(PROMPT, max_new_tokens=tokens, eos_token_id=[], **SETTINGS)
    times[0] = time.perf_counter()
    for index, token in enumerate(stream):
        ids[index], times[index + 1] = token, time.perf_counter()
        if (index + 1) % EVERY == 0:
            memory[index // EVERY] = _resident()
    return {
        "tokens": ids.tolist(),
        "microseconds": (np.diff(times) * 1e6).round(1).tolist(),
        "megabytes": memory.round(3).tolist(),
        "has_keras": "keras" in sys.modules,
    }


def _resident():
    """Megabytes of memory that this process holds."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096 / 1e6


class Uncached:
    """The decoder protocol of `keras_seqattn.generation` by a full pass over all tokens each time.

    Args:
        model: a Keras `SequenceModel` for causal_lm.
    """

    def __init__(self, model):
        from keras_seqattn.models.compiled import compiled

        self.vocabulary_size = model.config["vocab_size"]
        self._run = compiled(model, lambda outputs, last: outputs["logits"][:, last])

    def start(self, batch_size, max_length):
        self._ids = np.zeros((batch_size, max_length), "int32")
        self._length = 0

    def __call__(self, input_ids, attention_mask):
        from keras import ops

        end = self._length + input_ids.shape[1]
        self._ids[:, self._length : end] = input_ids
        self._length = end
        # One length for all passes, padded behind, where a causal model does not look.
        fed = {"input_ids": self._ids, "attention_mask": np.ones_like(self._ids)}
        fed = {name: ops.convert_to_tensor(value) for name, value in fed.items()}
        return ops.convert_to_numpy(self._run({}, fed, end - 1))


def uncached_tokens(model, count):
    """The first tokens that a Keras model generates without a cache, as a list."""
    from keras_seqattn.generation import Generator

    generator = Generator(Uncached(model))
    return generator.generate(PROMPT, max_new_tokens=count, eos_token_id=[], **SETTINGS)


def report(found, window, count, equal):
    """What was found, as Markdown."""
    from machine import description, table

    times, memory = found["microseconds"], found["megabytes"]
    span = min(5000, len(times) // 2)
    rows = [
        [name, f"{np.median(part):.0f}", f"{np.median(held):.1f}"]
        for name, part, held in (
            (f"first {span:,}", times[:span], memory[: span // EVERY]),
            (f"last {span:,}", times[-span:], memory[-(span // EVERY) :]),
        )
    ]
    return "\n\n".join(
        [
            "# Decoding with a rolling window",
            f"{description(['keras-seqattn', 'onnxruntime'])}. {len(times):,} tokens, "
            f"window {window}, one thread, in a process "
            f"{'with' if found['has_keras'] else 'without'} Keras. Medians. The first "
            f"{count} tokens {'are' if equal else 'ARE NOT'} those of the model without a cache.",
            table(["tokens", "microseconds a token", "memory in MB"], rows) + "\n",
        ]
    )


def draw(found, path):
    """Plot the time of each token, and the memory."""
    from matplotlib.figure import Figure

    times, memory = np.array(found["microseconds"]), found["megabytes"]
    width = max(1, len(times) // 200)
    blocks = times[: len(times) // width * width].reshape(-1, width)
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = np.arange(1, len(blocks) + 1) * width
    times = np.median(blocks, axis=1)
    left.plot(at, times, "C0-")
    left.set(title=f"Time per token (median of {width})", ylabel="microseconds")
    right.plot(np.arange(1, len(memory) + 1) * EVERY, memory, "C1-")
    right.set(title="Memory of the process", ylabel="MB")
    for axes, values in ((left, times), (right, memory)):
        axes.set_xlabel("tokens decoded")
        axes.set_ylim(0, 1.2 * max(values))
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
