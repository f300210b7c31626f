"""What exports: all functions of keras.ops and all layers, on each backend, as a document.

Usage: python export/coverage.py [--backends tensorflow jax torch] [--only NAME ...] [--keras]
    [--cache FILE] [--output docs/coverage.md]

Each backend runs in a process of its own. Each name is exported in its cases (tests/onnx/cases),
run in onnxruntime with several sizes, and compared with Keras. With `--keras`, `model.export` of
Keras writes the same layer, for comparison. Results are kept in the cache: a run continues where
the one before it was interrupted.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from machine import description, table

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_BACKENDS = ("tensorflow", "jax", "torch")
# The longest that the cases of one name may take, and Keras's own export of a layer.
_SECONDS, _KERAS_SECONDS = 120, 60
_PACKAGES = ("keras", "tensorflow", "jax", "torch", "onnxruntime")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", nargs="+", choices=_BACKENDS, default=list(_BACKENDS))
    parser.add_argument("--only", nargs="+", help="only these names")
    parser.add_argument("--keras", action="store_true", help="also Keras's own export of layers")
    parser.add_argument("--cache", type=pathlib.Path, default=_ROOT / ".coverage_results")
    parser.add_argument("--output", type=pathlib.Path, default=_ROOT / "docs" / "coverage.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        _work(arguments)
        return
    for backend in arguments.backends:
        environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(_ROOT)}
        command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
        subprocess.run(command, env=environment, check=True)
    sys.path.insert(0, str(_ROOT))
    results = {backend: _known(arguments.cache, backend) for backend in arguments.backends}
    arguments.output.write_text(_document(results, arguments.only), "utf-8")


def _known(cache, backend):
    file = pathlib.Path(f"{cache}.{backend}.json")
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


class _TooLongError(Exception):
    pass


def _work(arguments):
    """Measure on the backend of this process what the cache does not hold."""
    import keras

    from tests.onnx.cases import tables
    from tests.onnx.cases.running import outcomes

    backend = keras.backend.backend()
    file, known = (
        pathlib.Path(f"{arguments.cache}.{backend}.json"),
        _known(arguments.cache, backend),
    )
    for name, cases in (tables.op_cases() | tables.layer_cases()).items():
        if name in known or arguments.only and name not in arguments.only:
            continue
        found = _within(_SECONDS, lambda c=cases: outcomes(c)) or {}
        known[name] = {n: [o.state, o.error, o.text] for n, o in found.items()}
        if arguments.keras and cases[0].layer is not None:
            said = _within(_KERAS_SECONDS, lambda c=cases[0]: _of_keras(c))
            known[name]["keras"] = said or f"no file within {_KERAS_SECONDS} s"
        file.write_text(json.dumps(known, indent=1, default=float), "utf-8")


def _within(seconds, function):
    """The result of a function, or None if it takes longer."""

    def stop(*_):
        raise _TooLongError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        return function()
    except _TooLongError:
        return None
    finally:
        signal.alarm(0)


def _of_keras(case):
    """What `model.export(format="onnx")` of Keras gives for the model of a case."""
    import onnxruntime

    from tests.onnx.cases.inputs import SIZES, arrays
    from tests.onnx.cases.running import difference, references

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        try:
            case.model.export(path, format="onnx", verbose=False)
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            errors = []
            for sizes in SIZES:
                given = arrays(case.inputs, sizes)
                feeds = {i.name: given[i.name.split(":")[0]] for i in session.get_inputs()}
                expected = references([case], sizes)[case.name]
                errors.append(difference(expected, session.run(None, feeds))[0])
        except _TooLongError:
            raise
        except Exception as error:  # other libraries raise all kinds of errors
            return f"{type(error).__name__}"
    return "agrees" if max(errors) <= case.tolerance else "differs"


def _document(results, only):
    from tests.onnx.cases import refused

    parts = ["# What exports", _INTRODUCTION.format(machine=description(_PACKAGES))]
    names = sorted({name for known in results.values() for name in known})
    names = [name for name in names if not only or name in only]
    for title, group in (
        ("Layers", [n for n in names if n[0].isupper()]),
        ("Functions of keras.ops", [n for n in names if not n[0].isupper()]),
    ):
        rows = [[name, *(_cell(name, known.get(name)) for known in results.values())]
                for name in group]  # fmt: skip
        parts += [f"## {title}", table(["name", *results], rows)]
    parts += ["## What is refused, and why"]
    reasons = {**refused.OPS, **refused.LAYERS, **refused.CASES, **refused.NO_LAYERS}
    parts.append("\n".join(f"- `{name}`: {why}" for name, why in sorted(reasons.items())))
    parts += ["## Where a file gives something else than Keras"]
    parts.append("\n".join(f"- `{name}`: {why}" for name, why in refused.DIFFERENT.items()))
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """\
A program wrote this: `export/coverage.py`. Each function and each layer was exported in several
forms, with a dynamic batch and dynamic sizes, and run in onnxruntime with three combinations of
sizes. A cell gives the largest difference from Keras (relative to the largest magnitude, at least
1) and how many forms agree. "-" means that Keras itself has no such function on the backend.

A word after ";" is what Keras's own `model.export(format="onnx")` gave for the first form of a
layer: "agrees", "differs", or its error. Under JAX it needs the package jax2onnx, which was not
installed.

{machine}"""


def _cell(name, outcomes):
    if not outcomes:
        return "not measured"
    of_keras = outcomes.get("keras")
    states = [o for n, o in outcomes.items() if n != "keras" and o[0] != "not in Keras"]
    good = [error for state, error, _ in states if state == "ok"]
    if not states:
        text = "-"
    elif not good:
        text = "refused" if all(s[0] == "refused" for s in states) else "**differs**"
    else:
        text = f"{max(good):.0e}, {len(good)} of {len(states)}"
    return text + (f"; {of_keras}" if of_keras else "")


if __name__ == "__main__":
    main()
