"""Writes a model as one .onnx file, or as a bundle folder that other runtimes accept."""

import os
from pathlib import Path

import onnx_ir as ir
import onnxruntime

import keras_seqattn
from keras_seqattn.errors import ExportError
from keras_seqattn.files import FileTarget, FolderTarget, digest, listed_files, unchanged_files
from keras_seqattn.onnx.arguments import (
    check_choice,
    check_graph,
    check_model,
    check_progress,
    check_settings,
    checked_path,
)
from keras_seqattn.onnx.called_model import with_inputs
from keras_seqattn.onnx.companions import (
    check_files,
    companion_files,
    write_companions,
    written_only_if_usable,
)
from keras_seqattn.onnx.data_files import data_file, name_by_content, stale_data_files
from keras_seqattn.onnx.graph import build_graphs, shares_caches
from keras_seqattn.onnx.opset import check_opset, lower_opset
from keras_seqattn.onnx.precisions import get_precision
from keras_seqattn.onnx.report import write_report
from keras_seqattn.onnx.targets import check_onnxruntime, get_target
from keras_seqattn.onnx.verification import verify as run_verify
from keras_seqattn.ports import METADATA
from keras_seqattn.tasks import DECODER, ENCODER, MODEL, task_of_model

ROUTES = ("trace", "tf2onnx")
# The maximum number of bytes of weights inside model.onnx. More weights go into a file beside it,
# one at a time. The limit of protobuf is 2 GiB.
_INLINE_BYTES = 16 << 20
_PROTOBUF_BYTES = (2 << 30) - (64 << 20)


def export(
    model,
    path,
    *,
    target="ort",
    precision="fp32",
    opset=None,
    input_signature=None,
    ports=(),
    tokenizer=None,
    verify=True,
    lengths=None,
    route="trace",
    progress=None,
):
    """Write a Keras model as ONNX.

    Args:
        model: a SequenceModel, or any keras.Model: functional, Sequential or subclassed.
        path: a name that ends in .onnx for one file, else a bundle folder. An encoder-decoder needs
            a folder. If the folder holds a bundle, its files are replaced, unless somebody changed
            them. All other files stay. If a file that stays has the name of a new file, it gets the
            ending .kept, with a warning. At any time, another process finds the old result or the
            new one, even if this process is killed.
        target: "ort" (fused operators of onnxruntime), "portable" (only standard operators), or a
            registered target.
        precision: "fp32", "float16" (weights and activations), "int8" (dynamic, only matrix
            products), "int4" (only the weights of matrix products), "int4_int8_head" (int4 with an
            8-bit head), or a registered precision.
        opset: a lower version of the standard operators than the target's 23, for older runtimes.
            The operators of the model must allow it.
        input_signature: None, or what the `call` of the model takes: a list with one entry for each
            argument; a single argument needs no list. An entry is anything with a shape and a
            dtype, such as keras.InputSpec (its name becomes the name of the input), or a dict or
            list of such things. None in a shape is a dynamic size. A functional or Sequential model
            needs none. For another model that was called on data or built, Keras knows the shapes
            of the arguments that its `build` takes; the first axis becomes dynamic.
        ports: list of `keras_seqattn.ports.Port` for inputs and outputs, with what keras.Input does
            not say: the role, the names of dimensions (an equal name means an equal size), the
            range of valid integers. Each `Port` repeats the dtype and all axes of its input; the
            name of the batch axis is "batch_size" if other inputs have no `Port`.
        tokenizer: a folder with tokenizer files for the bundle. They replace those of the model.
        verify: first compare the result with the Keras model. For a bundle, also use its content:
            tokenizer, generation settings, chat template, labels, pooling. If the results differ or
            a file cannot be used, nothing is written.
        lengths: lengths of the inputs to compare, as in `verify`.
        route: "trace", or "tf2onnx" for the independent converter (only TensorFlow backend).
        progress: None, or a function that is called with (stage, done, total).

    Returns:
        The verification `Report`, or None with verify=False.

    Raises:
        ExportError: the model cannot be written, onnxruntime cannot run the file, the result
            differs from Keras, or `path` is a folder with files that is not a bundle. Then `path`
            does not change.
        InputError: the model does not accept the lengths.

    Example:
        model = keras_seqattn.models.load("smollm2.gguf")
        keras_seqattn.onnx.export(model, "smollm2-int4", precision="int4")
    """
    check_model(model)
    model = with_inputs(model, input_signature)
    place = _place(path)
    precision = get_precision(precision)
    check_choice("route", route, ROUTES)
    check_settings(target, verify, lengths, progress)
    check_opset(opset)
    tokenizer = None if tokenizer is None else checked_path(tokenizer, "tokenizer")
    single = isinstance(place, FileTarget)
    task = task_of_model(model)
    if single and task.reads_source:
        raise ExportError(
            f"{model.name} becomes two files, {ENCODER}.onnx and {DECODER}.onnx: name a folder, "
            f"not {place.path}"
        )
    target = get_target(target)
    if verify:
        check_onnxruntime(target, onnxruntime.__version__)
    files = {} if single else _companions(model, tokenizer, verify)
    graphs = _graphs(model, target, precision, opset, ports, route, progress)
    with place.staged() as folder:
        for name, graph in graphs.items():
            file = os.path.join(folder, f"{name}.onnx")
            write_onnx(graph, file, inline=single, progress=progress)
        if single:
            name_by_content(file, place.name)
        else:
            write_companions(files, folder, graphs.get(MODEL) if task.generates else None)
        written = os.path.join(folder, place.name) if single else folder
        how = lengths, progress, target.providers
        report = _verified(written, model, *how) if verify else None
        if not single:
            write_report(report, folder, _description(graphs, folder))
    return report


def _companions(model, tokenizer, verify):
    files = companion_files(model, tokenizer)
    if files and verify:
        # Quick checks come before slow work.
        check_files(files, task_of_model(model).name)
    return files


def _verified(path, model, lengths, progress, providers):
    """The report on the written files.

    Raises:
        ExportError: the result differs from Keras, or a file cannot be used.
    """
    progress = _stage(progress, "verify")
    with written_only_if_usable():
        report = run_verify(path, model, lengths=lengths, progress=progress, providers=providers)
    if not report.ok:
        raise ExportError(f"nothing was written: {report.summary()}")
    return report


def _graphs(model, target, precision, opset, ports, route, progress):
    """dict of file name without suffix -> graph, quantised and labelled."""
    if route == "tf2onnx":
        if ports:
            raise ExportError("ports= needs route 'trace': tf2onnx writes no declaration of ports")
        from keras_seqattn.onnx.tf2onnx_route import convert

        graphs = {MODEL: convert(model)}
    else:
        graphs = build_graphs(model, target, ports=ports)
    if precision.rewrite is not None:
        for graph in graphs.values():
            precision.rewrite(graph, parts=len(graphs), progress=_stage(progress, "quantize"))
    lower_opset(graphs.values(), target.lower_opset(opset))
    properties = {
        "version": keras_seqattn.__version__,
        "family": getattr(model, "family", None),
        "task": getattr(model, "task", None),
        "target": target.name,
        "precision": precision.name,
        "onnxruntime": target.onnxruntime,
    }
    for graph in graphs.values():
        shared = target.shares_caches and shares_caches(graph.graph)
        own = {"shared_cache": "true"} if shared else {}
        known = {k: v for k, v in (properties | own).items() if v}
        graph.metadata_props.update({f"keras_seqattn.{k}": v for k, v in known.items()})
    return graphs


def write_onnx(model, file, inline=False, progress=None):
    """Write an `onnx_ir.Model`. Weights above a threshold go to `<file>_data`, one at a time.

    Args:
        inline: keep all weights in the one file, if the 2 GiB of protobuf allow it.

    Raises:
        ExportError: `graph` is not a graph, or the file cannot be written.
    """
    check_graph(model)
    file = checked_path(file, "file")
    check_progress(progress)
    try:
        _write(model, file, inline, progress)
    except OSError as error:
        raise ExportError(f"cannot write {file}: {error.strerror or error}") from error
    except ir.serde.SerdeError as error:
        # Some weights are made only when they are written. They may be refused, deep inside.
        cause = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(str(cause)) from error


def _write(model, file, inline, progress):
    size = sum(v.const_value.nbytes for v in model.graph.initializers.values())
    if size <= (_PROTOBUF_BYTES if inline else _INLINE_BYTES):
        ir.save(model, file)
        return
    report = _stage(progress, "write")
    callback = None
    if report is not None:
        callback = lambda tensor, info: report(info.index + 1, info.total)  # noqa: E731
    data = data_file(os.path.basename(file))
    ir.save(model, file, external_data=data, size_threshold_bytes=1024, callback=callback)


def _description(graphs, folder):
    """What the bundle is, and the size and digest of each of its files."""
    files = {}
    for name in sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*")):
        file = os.path.join(folder, name)
        if os.path.isfile(file):
            files[name] = {"sha256": digest(file), "size": os.path.getsize(file)}
    labels = next(iter(graphs.values())).metadata_props
    properties = {k.removeprefix("keras_seqattn."): v for k, v in labels.items() if k != METADATA}
    return {**properties, "files": files}


def _stage(progress, name):
    return None if progress is None else lambda done, total: progress(name, done, total)


def _place(path):
    """The place of the result: a file or a folder. The name of the path decides."""
    if str(path).rstrip("/").endswith(".onnx"):
        return FileTarget(path, ExportError, stale_data_files)
    return FolderTarget(
        path, ExportError, _check_is_bundle, lambda folder, names: unchanged_files(folder)
    )


def _check_is_bundle(folder):
    if listed_files(folder) is None:
        raise ExportError(
            f"{folder} contains files but is not a bundle (it has no valid parity.json): "
            "name a new or empty folder, or move the files away"
        )
