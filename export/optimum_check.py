"""Our encoder-decoder bundles in optimum: the same greedy tokens as our runtime, or an error.

Usage, in an environment of its own (optimum-onnx needs an older transformers than the tests do):
    python -m venv /tmp/optimum
    /tmp/optimum/bin/pip install "optimum-onnx==0.1.*" "transformers<4.58" onnxruntime torch
    python export/seq2seq_bundles.py /tmp/bundles
    /tmp/optimum/bin/python export/optimum_check.py /tmp/bundles

optimum-onnx 0.1 takes the encoder's number of heads for the decoder's, and d_model over it for the
size of a head; a model with others, such as a T5 with another d_kv, it cannot run.
"""

import argparse
import importlib.metadata
import json
import pathlib
import sys

import torch
from optimum.onnxruntime import ORTModelForSeq2SeqLM

PACKAGES = ("optimum-onnx", "transformers", "onnxruntime", "torch")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES))
    wrong = 0
    for name, runs in json.loads((folder / "expected.json").read_text()).items():
        model = ORTModelForSeq2SeqLM.from_pretrained(folder / name)
        equal = [tokens(model, run) == cut(run["tokens"], model) for run in runs]
        rows = sum(len(run["tokens"]) for run in runs)
        print(f"{name}: {sum(equal)} of {len(runs)} runs ({rows} sources) give the same tokens")
        wrong += len(runs) - sum(equal)
    return 1 if wrong else 0


def tokens(model, run):
    """The new tokens of each source, as lists."""
    made = model.generate(
        input_ids=torch.tensor(run["input_ids"]),
        attention_mask=torch.tensor(run["attention_mask"]),
        do_sample=False,
        num_beams=1,
        **run["settings"],
    )
    # The first is the token that decoding starts with.
    return cut(made[:, 1:].tolist(), model)


def cut(rows, model):
    """Rows up to their end-of-sequence token; what fills a row behind it does not count."""
    end = model.generation_config.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


if __name__ == "__main__":
    sys.exit(main())
