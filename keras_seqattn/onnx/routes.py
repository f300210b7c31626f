"""Compares the routes from a Keras model to ONNX: the files of both, and Keras itself."""

import dataclasses
import os
import tempfile
import time

import onnx

from keras_seqattn.errors import SeqAttnError
from keras_seqattn.onnx.arguments import check_lengths, check_model
from keras_seqattn.onnx.bundle import ROUTES, export
from keras_seqattn.onnx.called_model import with_inputs
from keras_seqattn.onnx.verification import verify


@dataclasses.dataclass(frozen=True)
class Route:
    """What one route makes of a model.

    Attributes:
        name: "trace" or "tf2onnx".
        seconds: the time to make the file.
        opset: the version of the standard operators in the file.
        nodes: the number of nodes in the graph and in the graphs inside its nodes.
        size: bytes of the file with its weights.
        error: the largest error against Keras, as in `Report.worst`.
        ok: whether the file computes the same as Keras.
        refusal: why there is no file, or why it cannot be run. Else None.
    """

    name: str
    seconds: float | None = None
    opset: int | None = None
    nodes: int | None = None
    size: int | None = None
    error: float | None = None
    ok: bool = False
    refusal: str | None = None


class Routes(list):
    """The `Route`s of a model. As text, they are a table."""

    def __str__(self):
        rows = [("route", "seconds", "opset", "nodes", "bytes", "error", "")]
        rows += [_row(route) for route in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(x.ljust(n) for x, n in zip(row, widths, strict=True)).rstrip() for row in rows
        )
        return "\n".join(lines)


def _row(route):
    def shown(value, form=""):
        return "-" if value is None else format(value, form)

    numbers = (shown(route.opset), shown(route.nodes), shown(route.size, ","))
    said = route.refusal or ("equals Keras" if route.ok else "DIFFERS from Keras")
    return route.name, shown(route.seconds, ".2f"), *numbers, shown(route.error, ".1e"), said


def compare_routes(model, *, lengths=None, input_signature=None):
    """Export a model on each route to one temporary file, and compare each file with Keras.

    Args:
        model, lengths, input_signature: as for `export`.

    Returns:
        Routes, a list with one `Route` for each route. `print` shows it as a table.

    Raises:
        ExportError: the argument is not a Keras model, or its inputs are not known.
        InputError: the lengths are not valid.
    """
    check_model(model)
    check_lengths(lengths)
    model = with_inputs(model, input_signature)
    with tempfile.TemporaryDirectory() as folder:
        return Routes(_tried(model, name, os.path.join(folder, name), lengths) for name in ROUTES)


def _tried(model, name, folder, lengths):
    os.mkdir(folder)
    file, found = os.path.join(folder, "model.onnx"), {}
    try:
        start = time.perf_counter()
        export(model, file, route=name, verify=False)
        found["seconds"] = time.perf_counter() - start
        found |= _facts(file)
        report = verify(file, model, lengths=lengths)
        found |= {"error": report.worst, "ok": report.ok}
    except SeqAttnError as error:
        found["refusal"] = str(error)
    return Route(name, **found)


def _facts(file):
    model = onnx.load(file, load_external_data=False)
    size = sum(entry.stat().st_size for entry in os.scandir(os.path.dirname(file)))
    (opset,) = (entry.version for entry in model.opset_import if not entry.domain)
    return {"opset": opset, "nodes": _nodes(model.graph), "size": size}


def _nodes(graph):
    inner = (a.g for node in graph.node for a in node.attribute if a.HasField("g"))
    return len(graph.node) + sum(map(_nodes, inner))
