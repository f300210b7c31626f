"""What each attention mechanism costs, and what it is good for: docs/attention_costs.md.

Usage: python export/attention_costs.py [--stages costs quality streaming report] [--short]
    [--engines NAME ...] [--mechanisms NAME ...] [--minutes M] [--output FOLDER] [--document FILE]

Time and peak memory of one layer by length, in every Keras backend and in onnxruntime; accuracies
of small models on three tasks; a decoder with a window on a long text; and the document. It goes
on where it was stopped: results are kept cell by cell in FOLDER/results.json. About 30 minutes for
the costs and 20 for the quality on two cores; --short takes two. Linux; needs the extra test.
"""

import argparse
import os
import pathlib
import tempfile
import time

# For the names of the mechanisms; what is measured runs in processes with backends of their own.
os.environ.setdefault("KERAS_BACKEND", "torch")

from attention_study import costs, engines, memory, quality, report, streaming
from attention_study.mechanisms import MECHANISMS
from attention_study.results import Results
from attention_study.settings import FULL, SHORT
from machine import description

STAGES = ("costs", "quality", "streaming", "report")
ENGINES = ("onnxruntime", *engines.BACKENDS, engines.PORTABLE)
PACKAGES = ("keras", "tensorflow-cpu", "jax", "torch", "onnxruntime")
DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "attention_costs.md"


def main(arguments=None):
    options = _parser().parse_args(arguments)
    settings = SHORT if options.short else FULL
    results = Results(options.output / "results.json", settings)
    document = options.document or (options.output / DOCUMENT.name if options.short else DOCUMENT)
    deadline = time.monotonic() + 60 * options.minutes
    if set(options.stages) - {"report"}:
        memory.check()
        gibibytes = f"{memory.available() / 2**30:.0f} GiB free at the start"
        results.describe({"description": f"{description(PACKAGES)}; {gibibytes}"})
    with tempfile.TemporaryDirectory() as work:
        work = pathlib.Path(work)
        if "costs" in options.stages:
            costs.measure(results, settings, options.mechanisms, options.engines, work, deadline)
        if "quality" in options.stages:
            quality.measure(results, settings, options.mechanisms, deadline)
        if "streaming" in options.stages:
            streaming.measure(results, settings, work, deadline)
    if "report" in options.stages:
        parts = report.write(results, options.engines, document)
        for name in ("claims", "local", "streaming", "quality", "choices"):
            print(f"\n{parts[name]}")
        print(f"\nThe document is {document}.")


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--mechanisms", nargs="+", choices=MECHANISMS, default=list(MECHANISMS))
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="after so many nothing new is begun"
    )
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("attention_costs"))
    parser.add_argument(
        "--document", type=pathlib.Path, help="default: docs/; of the short form, FOLDER"
    )
    parser.add_argument("--short", action="store_true", help="tiny lengths and models, for CI")
    return parser


if __name__ == "__main__":
    main()
