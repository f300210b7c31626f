"""Tiny T5 and BART bundles, and the greedy tokens that our runtime makes with them.

Usage: python export/seq2seq_bundles.py FOLDER [--targets ort portable]

Writes FOLDER/NAME-TARGET, a bundle each, and FOLDER/expected.json, which optimum_check.py and
transformers_js_check.mjs compare the same bundles with in other runtimes. The models are the
re-randomised ones of the tests: random weights choose among tokens more narrowly than trained ones.
"""

import argparse
import json
import os
import pathlib
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
MODELS = ("t5", "t5-gated", "bart")
# Alone, greedy decoding of random weights soon repeats itself.
SETTINGS = ({}, {"no_repeat_ngram_size": 2})
NEW_TOKENS = 16


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--targets", nargs="+", default=["ort", "portable"])
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    from keras_seqattn import onnx
    from tests.onnx import tiny

    expected = {}
    for name in MODELS:
        for target in arguments.targets:
            bundle = arguments.folder / f"{name}-{target}"
            report = onnx.export(tiny.seq2seq(name), bundle, target=target)
            print(f"{bundle}: {report.summary()}")
            expected[bundle.name] = tokens(bundle)
    (arguments.folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def tokens(bundle):
    """Sources, settings, and what our runtime generates: a list of dicts of lists."""
    from keras_seqattn import runtime

    model, runs = runtime.load(bundle, threads=1), []
    for length, real in ((1, [1]), (5, [5, 3, 1]), (29, [29, 17, 6])):
        ids = np.random.default_rng(length).integers(
            3, model.config["vocab_size"], (len(real), length)
        )
        mask = (np.arange(length) < np.array(real)[:, None]).astype(np.int64)
        for settings in SETTINGS:
            made = model.generate(ids, mask, do_sample=False, max_new_tokens=NEW_TOKENS, **settings)
            runs.append(
                {"input_ids": ids.tolist(), "attention_mask": mask.tolist(),
                 "settings": {"max_new_tokens": NEW_TOKENS, **settings}, "tokens": made.tolist()}
            )  # fmt: skip
    return runs


if __name__ == "__main__":
    main()
