"""The parity matrix: model x target x precision x backend, as a Markdown table.

Usage: python export/parity.py [--backends tensorflow jax torch] [--models NAME ...] [--tiny]
    [--output export/parity.md]

Each cell exports the model on that backend, runs the file in onnxruntime against Keras, and gives
the error of `keras_seqattn.onnx.verify`; bold where it exceeds the tolerance. The last column says
whether the backends wrote the same bytes. The tiny models are the re-randomised ones of the tests;
the two real ones come from their packages.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from machine import description, table

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_BACKENDS = ("tensorflow", "jax", "torch")
_REAL = ("SmolLM2-135M", "all-MiniLM-L6-v2")
_CELLS = [(t, p) for t in ("ort", "portable") for p in ("fp32", "int8", "int4")]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=_BACKENDS, default=list(_BACKENDS))
    parser.add_argument("--models", nargs="+", help="only these")
    parser.add_argument("--tiny", action="store_true", help="without the two real models")
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path(__file__).with_suffix(".md")
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return _worker(arguments.models, arguments.tiny)
    results = {backend: _run(backend, arguments) for backend in arguments.backends}
    text = "\n\n".join(
        [
            "# Parity",
            description(["onnxruntime", "keras", *arguments.backends]) + ".",
            _table(results),
        ]
    )
    arguments.output.write_text(text + "\n")
    print(text)
    wrong = [key for cells in results.values() for key, cell in cells.items() if not cell["ok"]]
    return 1 if wrong else 0


def _run(backend, arguments):
    """{(model, target, precision): cell} of one backend, in a process of its own."""
    command = [sys.executable, __file__, "--worker"] + ["--tiny"] * arguments.tiny
    command += ["--models", *arguments.models] if arguments.models else []
    process = subprocess.Popen(
        command, env={**os.environ, "KERAS_BACKEND": backend}, stdout=subprocess.PIPE, text=True
    )
    cells = {}
    for line in process.stdout:
        cell = json.loads(line)
        cells[tuple(cell["key"])] = cell
        print(backend, *cell["key"], cell["text"], file=sys.stderr, flush=True)
    if process.wait():
        raise SystemExit(f"the {backend} run ended with status {process.returncode}")
    return cells


def _table(results):
    backends = list(results)
    rows = []
    for key in results[backends[0]]:
        cells = [results[backend][key] for backend in backends]
        same = "yes" if len({cell["sha256"] for cell in cells}) == 1 else "**no**"
        shown = [cell["text"] if cell["ok"] else f"**{cell['text']}**" for cell in cells]
        rows.append([*key, *shown, same])
    return table(["model", "target", "precision", *backends, "same bytes"], rows)


def _worker(names, tiny_only):
    """Export and verify every cell on this process's backend; a JSON line for each."""
    for name, make in _models(tiny_only).items():
        if names and name not in names:
            continue
        model = make()
        for target, precision in _CELLS:
            print(json.dumps({"key": (name, target, precision), **_cell(model, target, precision)}))
            sys.stdout.flush()


def _models(tiny_only):
    """Name -> function that makes the model."""
    sys.path.insert(0, str(_ROOT))
    from keras_seqattn import models, samples
    from tests.onnx import tiny

    made = {name: lambda n=name: tiny.decoder(n) for name in tiny.DECODERS}
    made |= {name: lambda n=name: tiny.encoder(n) for name in tiny.ENCODERS}
    made |= {name: lambda n=name: tiny.seq2seq(n) for name in tiny.SEQ2SEQ}
    if not tiny_only:
        paths = zip(_REAL, (samples.smollm2, samples.minilm), strict=True)
        made |= {name: lambda p=path: models.load(p()) for name, path in paths}
    return made


def _cell(model, target, precision):
    from keras_seqattn import onnx
    from keras_seqattn.errors import SeqAttnError

    with tempfile.TemporaryDirectory() as folder:
        try:
            path = os.path.join(folder, "bundle")
            onnx.export(model, path, target=target, precision=precision, verify=False)
            report = onnx.verify(path, model)
        except SeqAttnError as error:
            return {"ok": False, "text": str(error).splitlines()[0], "sha256": None}
        digest = hashlib.sha256()
        for file in sorted(pathlib.Path(path).glob("*.onnx*")):
            digest.update(file.read_bytes())
    return {"ok": report.ok, "text": f"{report.error:.1e}", "sha256": digest.hexdigest()}


if __name__ == "__main__":
    sys.exit(main())
