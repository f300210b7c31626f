"""Speed of exported models against what people use today, as Markdown tables.

Usage: python export/benchmark.py [--parts decoder concurrency encoder export] [--rounds 9]
    [--work DIR] [--output export/benchmark.md]

Needs the extras test and quickstart. The decoder is SmolLM2-135M-Instruct against onnxruntime-genai
with the model its own builder makes from the same weights; the encoder is all-MiniLM-L6-v2 against
the torch.onnx export of the same model, quantised by onnxruntime's quantize_dynamic.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import contenders
import references
from interleaved import compare, ratio
from machine import description, table

from keras_seqattn import samples
from keras_seqattn.progress import Steps

SIZES = [(1, 16), (1, 128), (8, 64), (32, 128), (1, 512)]
PACKAGES = ["onnxruntime", "onnxruntime-genai", "torch", "transformers", "keras"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--work", type=pathlib.Path, help="keeps the models between runs")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".md")
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or pathlib.Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        sections = [PARTS[part](work.resolve(), arguments.rounds) for part in arguments.parts]
    text = "\n\n".join(["# Benchmark", description(PACKAGES) + ".", *sections]) + "\n"
    arguments.output.write_text(text)
    print(text)


def decoder(work, rounds):
    """Prefill and decode, int4 and fp32."""
    from keras_seqattn import models, onnx

    model = models.load(samples.smollm2())
    directory = work / "smollm2"
    if not directory.exists():
        models.save(model, directory)
    rows = []
    for precision in ("int4", "fp32"):
        bundle = work / f"smollm2-{precision}"
        onnx.export(model, bundle, precision=precision, verify=False)
        theirs = references.genai(directory, work / f"genai-{precision}", precision)
        names = {
            "onnxruntime-genai": ("onnxruntime-genai", {"folder": str(theirs)}),
            "keras-seqattn": ("keras-seqattn", {"bundle": str(bundle)}),
            "our bundle in onnxruntime-genai": ("onnxruntime-genai", {"folder": str(bundle)}),
        }
        results = _compare(names, rounds, f"decoder {precision}")
        rows += _decoder_rows(precision, results, {"onnxruntime-genai": theirs}, bundle)
    header = ["precision", "runtime", "file MB", "prefill tok/s", "ratio", "decode tok/s", "ratio"]
    task = f"prompt {contenders.PROMPT}, {contenders.NEW_TOKENS} new tokens"
    title = f"## Decoder: SmolLM2-135M, {task}, {contenders.THREADS} threads\n\n"
    return title + table(header, rows)


def _decoder_rows(precision, results, folders, bundle):
    baseline = results["onnxruntime-genai"]
    rows = []
    for name, metrics in results.items():
        row = [precision, name, _megabytes(folders.get(name, bundle))]
        for metric in ("prefill", "decode"):
            values = metrics[metric]
            row += [f"{statistics.median(values):.0f}", f"{ratio(values, baseline[metric]):.2f}"]
        rows.append(row)
    return rows


def _megabytes(folder):
    return round(sum(f.stat().st_size for f in folder.glob("model.onnx*")) / 1e6)


def concurrency(work, rounds):
    """One generation and four at once, on one loaded int4 model."""
    from keras_seqattn import models, onnx

    bundle = work / "smollm2-int4"
    onnx.export(models.load(samples.smollm2()), bundle, precision="int4", verify=False)
    names = {
        (threads, count): (
            "threads",
            {"bundle": str(bundle), "generations": count, "threads": threads},
        )
        for threads in (contenders.THREADS, 1)
        for count in (1, 4)
    }
    results = _compare(names, rounds, "concurrency")
    rows = []
    for threads in (contenders.THREADS, 1):
        one, four = (results[threads, count]["tokens"] for count in (1, 4))
        figures = [f"{statistics.median(values):.0f}" for values in (one, four)]
        rows.append([threads, *figures, f"{ratio(four, one):.2f}"])
    header = ["threads of the session", "one generation, tok/s", "four at once, tok/s", "ratio"]
    return "## Several generations on one model: SmolLM2-135M, int4\n\n" + table(header, rows)


def encoder(work, rounds):
    """Latency at several batch sizes and lengths, fp32 and int8."""
    from keras_seqattn import models, onnx

    source = samples.minilm()
    model = models.load(source)
    theirs = references.torch_encoder(source, work)
    rows = []
    for precision, reference in theirs.items():
        file = work / f"minilm-{precision}.onnx"
        onnx.export(model, file, precision=precision, verify=False)
        names = {
            "torch.onnx": ("encoder", {"file": str(reference), "sizes": SIZES}),
            "keras-seqattn": ("encoder", {"file": str(file), "sizes": SIZES}),
        }
        results = _compare(names, rounds, f"encoder {precision}")
        for size, ours in results["keras-seqattn"].items():
            reference_times = results["torch.onnx"][size]
            rows.append(
                [precision, size, f"{statistics.median(reference_times):.2f}",
                 f"{statistics.median(ours):.2f}", f"{ratio(ours, reference_times):.2f}"]
            )  # fmt: skip
    header = ["precision", "(batch, length)", "torch.onnx ms", "keras-seqattn ms", "ratio"]
    title = f"## Encoder: all-MiniLM-L6-v2, latency, {contenders.THREADS} threads\n\n"
    return title + table(header, rows)


def export(work, rounds):
    """Time and memory of an fp32 export; each in a fresh process."""
    runs = []
    for number in range(min(rounds, 3)):
        settings = {"source": str(samples.smollm2()), "path": str(work / f"export-{number}")}
        runs.append(_compare({"export": ("export", settings)}, 1, "export")["export"])
    median = {name: statistics.median(run[name][0] for run in runs) for name in runs[0]}
    row = [
        f"{median['weights']:.0f} MB", f"{median['load']:.1f} s", f"{median['seconds']:.1f} s",
        f"{median['peak']:.2f} x the weights", f"{median['added']:.2f} x",
    ]  # fmt: skip
    header = [
        "weights",
        "load (GGUF)",
        "export",
        "peak memory with the model",
        "memory of the export alone",
    ]
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return f"## Export: SmolLM2-135M to fp32, {backend} backend\n\n" + table(header, [row])


def _compare(names, rounds, title):
    with Steps()(title) as progress:
        return compare(names, rounds, lambda done, total: progress("rounds", done, total))


PARTS = {"decoder": decoder, "concurrency": concurrency, "encoder": encoder, "export": export}

if __name__ == "__main__":
    main()
