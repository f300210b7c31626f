"""How attention replaced recurrence, measured: three translators of equal size and training time.

Debian's package descriptions, English to Italian; an LSTM sequence-to-sequence model, a GRU with
attention, and a transformer. It writes a document with tables and plots, and exports the best model
to int8. About 45 minutes on two cores (with --short, under 3); an interrupted run goes on where it
stopped. It runs on JAX, which compiles such models the soonest on a CPU.

    python examples/seq2seq_vs_transformer.py --output study
"""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(Path(__file__).parent))

import keras
from translation_study import (
    alignments,
    corpus,
    deployment,
    fitting,
    gradients,
    memory,
    quality,
    report,
    throughput,
)
from translation_study.settings import FAMILIES, FULL, SHORT
from translation_study.stages import Stages


def main(output, short=False, document=None):
    if keras.backend.backend() != "jax":
        raise SystemExit("this study takes its gradients by JAX: set KERAS_BACKEND=jax")
    settings = SHORT if short else FULL
    folder = Path(output)
    stage = Stages(folder, settings)
    texts = corpus.read_corpus(settings, folder)
    pairs = quality.held_out(texts, settings)

    def measured(name, measure, families=FAMILIES):
        return {family: stage(f"{name}_{family}", measure, family) for family in families}

    results = {"corpus": stage("corpus", corpus.describe, texts, settings)}
    results["training"] = measured(
        "training", lambda family: fitting.fit(family, texts, settings, folder / family)
    )
    results["quality"] = measured(
        "quality", lambda family: quality.measure(family, texts, settings, folder)
    )
    results["throughput"] = measured(
        "throughput", lambda family: throughput.measure(family, settings)
    )
    results["gradients"] = measured(
        "gradients", lambda family: gradients.measure_both(family, texts, settings, folder)
    )
    results["memory"] = measured("memory", lambda family: memory.measure(family, settings))
    sentence = quality.short_sentence(pairs, texts)
    results["alignments"] = measured(
        "alignments",
        lambda family: alignments.measure(family, sentence, settings, folder),
        ("bahdanau", "transformer"),
    )
    best = max(FAMILIES, key=lambda family: results["quality"][family]["all"]["bleu"])
    results["deployment"] = stage("deployment", deployment.measure, best, texts, settings, folder)
    results["examples"] = quality.examples(results["quality"], pairs, texts)
    results["seconds"] = stage.seconds()
    path = report.write(results, dataclasses.asdict(settings), Path(document or folder))
    report.show(results)
    print(f"The document is {path}; what it stands on is in {folder}.")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="seq2seq_vs_transformer", help="folder for results")
    parser.add_argument("--document", help="folder for the document; the default is the output's")
    parser.add_argument("--short", "--quick", action="store_true", help="tiny models, for CI")
    options = parser.parse_args()
    main(options.output, options.short, options.document)
