"""The best model as an int8 bundle, and how it translates without Keras."""

import time
from pathlib import Path

from keras_seqattn import models, onnx, training
from translation_study.quality import decoding, export_fp32, held_out, translate


def measure(family, corpus, settings, folder):
    """Export to int8 with verification, and compare the BLEU of Keras and of the runtime.

    Args:
        family: str, the best one.
        corpus: Corpus.
        settings: Settings.
        folder: pathlib.Path of the trained models.

    Returns:
        dict of BLEU, sizes, seconds, and what the verification said.
    """
    model = models.load(folder / family)
    bundle = folder / f"{family}-int8"
    if bundle.exists():
        report = onnx.verify(bundle, model)
    else:
        report = onnx.export(model, bundle, precision="int8")
    pairs = held_out(corpus, settings)
    sources, references = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ways = {
        "keras": lambda: training.translate(model, sources, **decoding(settings)),
        "runtime fp32": lambda: translate(export_fp32(family, settings, folder), sources, settings),
        "runtime int8": lambda: translate(bundle, sources, settings),
    }
    found = {"family": family, "verification": report.summary(), "ways": {}}
    translations = {}
    for name, way in ways.items():
        start = time.perf_counter()
        translations[name] = way()
        found["ways"][name] = {
            "bleu": training.corpus_bleu(translations[name], references),
            "chrf": training.corpus_chrf(translations[name], references),
            "seconds": time.perf_counter() - start,
        }
    for name, sizes in (("fp32", f"{family}-fp32"), ("int8", f"{family}-int8")):
        found["ways"][f"runtime {name}"]["megabytes"] = _megabytes(folder / sizes)
    found["equal_to_keras"] = {
        name: sum(a == b for a, b in zip(rows, translations["keras"], strict=True)) / len(rows)
        for name, rows in translations.items()
    }
    found["sentences"] = len(sources)
    return found


def _megabytes(folder):
    return sum(file.stat().st_size for file in Path(folder).glob("*.onnx*")) / 1e6
