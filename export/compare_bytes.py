"""Whether two checkouts of this project write the same files, as a Markdown table.

Usage: python export/compare_bytes.py OLD [NEW] [--only NAME ...] [--output FILE]

OLD and NEW are folders of checkouts; NEW is this one if it is left out. Every tiny model of
tests/onnx/tiny.py is exported by both, for each target and precision, and the SHA-256 of the graphs
are compared. Metadata and the name and version of the producer are left out of the sums. The models
are those of this checkout on both sides. Ends with 1 if a file differs. KERAS_BACKEND chooses the
backend.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import zlib

TARGETS, PRECISIONS = ("ort", "portable"), ("fp32", "int8", "int4")
ROOT = pathlib.Path(__file__).resolve().parents[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=pathlib.Path, nargs="?")
    parser.add_argument("new", type=pathlib.Path, nargs="?", default=ROOT)
    parser.add_argument("--only", nargs="+", help="names of models")
    parser.add_argument("--output", type=pathlib.Path, help="also write the table here")
    parser.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.list:
        json.dump(dict(_sums(arguments.only)), sys.stdout)
        return
    if arguments.old is None:
        parser.error("name the checkout to compare with")
    old, new = (_listed(side, arguments.only) for side in (arguments.old, arguments.new))
    text, differ = _table(old, new)
    if arguments.output:
        arguments.output.write_text(text + "\n")
    print(text)
    sys.exit(bool(differ))


def _listed(checkout, only):
    """What `--list` prints with the package of a checkout and the models of this one."""
    with tempfile.TemporaryDirectory() as folder:
        for name, root in (("keras_seqattn", checkout.resolve()), ("tests", ROOT)):
            (pathlib.Path(folder) / name).symlink_to(root / name)
        command = [sys.executable, __file__, "--list", *(["--only", *only] if only else [])]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _sums(only):
    """(name/target/precision/file, {"sha256", "nodes"}) of every file."""
    from keras_seqattn import onnx

    for name, make in _models().items():
        if only and name not in only:
            continue
        model = _redrawn(make())
        for target in TARGETS:
            for precision in PRECISIONS:
                with tempfile.TemporaryDirectory() as folder:
                    bundle = pathlib.Path(folder) / "bundle"
                    onnx.export(model, bundle, target=target, precision=precision, verify=False)
                    for file in sorted(bundle.glob("*.onnx")):
                        yield f"{name}/{target}/{precision}/{file.stem}", _sum(file)


def _models():
    from tests.onnx import tiny

    return {
        name: lambda make=make, name=name: make(name)
        for table, make in (
            (tiny.DECODERS, tiny.decoder),
            (tiny.ENCODERS, tiny.encoder),
            (tiny.SEQ2SEQ, tiny.seq2seq),
        )
        for name in table
    }


def _redrawn(model):
    """The model with weights that depend on their paths alone, not on the order of the layers."""
    import keras
    import numpy as np

    for variable in model.weights:
        if keras.backend.is_float_dtype(variable.dtype):
            random = np.random.default_rng(zlib.crc32(variable.path.encode()))
            variable.assign(0.2 * random.standard_normal(variable.shape))
    return model


def _sum(file):
    import onnx

    model = onnx.load(file)
    del model.metadata_props[:]
    model.producer_name = model.producer_version = ""
    nodes = collections.Counter(node.op_type for node in model.graph.node)
    content = model.SerializeToString(deterministic=True)
    return {"sha256": hashlib.sha256(content).hexdigest(), "nodes": nodes}


def _table(old, new):
    """The table, a row for each model, and the names of files that differ."""
    files = sorted(old.keys() | new.keys())
    cells, differ = collections.defaultdict(list), {}
    for file in files:
        name, target, precision, _ = file.split("/")
        sides = [side.get(file, {"sha256": None, "nodes": {}}) for side in (old, new)]
        if sides[0]["sha256"] != sides[1]["sha256"]:
            differ[file] = _change(*(side["nodes"] for side in sides))
        else:
            cells[name, f"{target} {precision}"].append(sides[0]["sha256"][:8])
    columns = [f"{target} {precision}" for target in TARGETS for precision in PRECISIONS]
    lines = [f"| model | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    changed = {tuple(file.split("/")[:3]) for file in differ}
    for name in dict.fromkeys(file.split("/")[0] for file in files):
        row = [
            "differs" if (name, *column.split()) in changed else " ".join(cells[name, column])
            for column in columns
        ]
        lines.append(f"| {name} | {' | '.join(row)} |")
    lines += ["", f"{len(files) - len(differ)} of {len(files)} files are the same."]
    lines += [f"- {file}: {change}" for file, change in differ.items()]
    return "\n".join(lines), differ


def _change(old, new):
    counts = {name: new.get(name, 0) - old.get(name, 0) for name in old | new}
    return ", ".join(f"{n:+d} {name}" for name, n in counts.items() if n) or "same operators"


if __name__ == "__main__":
    main()
