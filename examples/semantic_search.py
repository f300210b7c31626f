"""Search by meaning, without Keras: which module of the standard library does what you ask?

all-MiniLM-L6-v2 is exported once, to int8; then only NumPy, onnxruntime and tokenizers are used.

    python examples/semantic_search.py "make a file smaller"
"""

import ast
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy as np

from keras_seqattn import models, onnx, runtime, samples


def read_modules(limit):
    """Dict of module name -> the first paragraph of its docstring."""
    found = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:limit]:
        text = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        if text and not path.stem.startswith("_"):
            found[path.stem] = text.split("\n\n")[0].replace("\n", " ")
    return found


def main(queries=("make a file smaller", "read a date", "dial-up news"), short=False):
    modules = read_modules(limit=80 if short else None)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "minilm"
        onnx.export(models.load(samples.minilm()), bundle, precision="int8", verify=not short)
        encoder = runtime.load(bundle)
        vectors = encoder.embed([f"{name}: {text}" for name, text in modules.items()])
        found = {}
        for query, vector in zip(queries, encoder.embed(list(queries)), strict=True):
            found[query] = [list(modules)[i] for i in np.argsort(-vectors @ vector)[:3]]
            print(f"{query}: {', '.join(found[query])}")
    return found


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != "--short"]
    main(*[words] * bool(words), short="--short" in sys.argv)
