"""Which models of keras-hub export, as a Markdown table: backbones, and tasks with their caches.

Usage: python export/keras_hub_models.py [--backend torch] [--models NAME ...]
    [--output export/keras_hub_models.md]

Each model is built at a tiny size, without downloads, and its weights are drawn again. A backbone
becomes one file, and a task a bundle. The error is that of `keras_seqattn.onnx.verify` against
Keras, with dynamic batch sizes and lengths. Where a model is refused, the table says why.
"""

import argparse
import os
import pathlib
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from machine import description, table

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
# The first words of a refusal say what is wrong; the others what to do.
_MOST = 160


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=("tensorflow", "jax", "torch"), default="torch")
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".md")
    )
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = arguments.backend
    import tiny_keras_hub as tiny

    tasks = [*tiny.DECODERS, *tiny.ENCODER_DECODERS]
    wanted = set(arguments.models or tiny.BACKBONES)
    parts = []
    for title, models, make in (
        ("Backbones", tiny.BACKBONES, lambda name: tiny.BACKBONES[name]()),
        ("Tasks with caches", tasks, tiny.task),
    ):
        rows = [
            (name, *_result(make, name, title == "Backbones", tiny.LENGTHS.get(name)))
            for name in models
            if name in wanted
        ]
        parts += [f"## {title}", table(("model", "largest error", "tolerance"), rows)]
    packages = ["keras-hub", "keras", "onnxruntime", arguments.backend]
    text = "\n\n".join(["# Models of keras-hub", description(packages) + ".", *parts])
    arguments.output.write_text(text + "\n")
    print(text)


def _result(make, name, single, lengths):
    """(error, tolerance) of an export, or (why it was refused, "")."""
    from keras_seqattn.errors import SeqAttnError
    from keras_seqattn.onnx import export
    from tests.helpers import randomise

    print(name, file=sys.stderr)
    model = randomise(make(name), seed=2)
    # With large scores attention is all or nothing, and rounding errors become large.
    for variable in model.weights:
        if "query" in variable.path and variable.path.endswith("kernel"):
            variable.assign(variable * 0.25)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx" if single else "bundle")
        try:
            report = export(model, path, lengths=lengths)
        except SeqAttnError as error:
            return " ".join(str(error).split())[:_MOST].replace("|", "/"), ""
    return f"{report.worst:.0e}", f"{report.tolerance:.0e}"


if __name__ == "__main__":
    sys.exit(main())
