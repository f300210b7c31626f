"""The files of weights beside .onnx files: `<file>_data`. A browser fetches no other name.

Beside a single .onnx file, the name also has a part of the SHA-256 of the content,
`<name>.<part of SHA-256>.onnx_data`, because two files cannot be replaced at once. The new weights
get a new name, and then the graph that refers to them is replaced. So old and new never mix. A
bundle is replaced as a whole.
"""

import os
import re

import onnx

from keras_seqattn.errors import BundleError
from keras_seqattn.files import digest, with_ending
from keras_seqattn.runtime.external_data import external_files

# The name in earlier versions is allowed, too.
_NAME = re.compile(r".*\.([0-9a-f]{16})\.(?:onnx_data|data)", re.DOTALL)


def data_file(file):
    """The file of weights of an .onnx file in a bundle."""
    return f"{file}_data"


def graphs_with_data(folder):
    """Sorted names of the .onnx files of a bundle that have a file of weights."""
    names = sorted(os.listdir(folder))
    return [name for name in names if name.endswith(".onnx") and data_file(name) in names]


def name_by_content(file, name):
    """Rename a file of `write_onnx`. Its file of weights gets a name with a part of its SHA-256.

    Args:
        file: str, the .onnx file.
        name: str, its new name.
    """
    folder, data = os.path.dirname(file), data_file(file)
    if os.path.exists(data):
        ending = f".{digest(data)[:16]}.onnx_data"
        location = with_ending(name.removesuffix(".onnx"), ending)
        model = onnx.load(file, format="protobuf", load_external_data=False)
        for tensor in _tensors(model.graph):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        onnx.save(model, file, format="protobuf")
        os.rename(data, os.path.join(folder, location))
    os.rename(file, os.path.join(folder, name))


def _tensors(graph):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def stale_data_files(path):
    """Names of the files of weights that we wrote and only this .onnx file needs, if unchanged.

    Args:
        path: str, the .onnx file.
    """
    folder = os.path.dirname(path)
    found = {name for name in _locations(path) if _is_ours(folder, name)}
    others = [name for name in os.listdir(folder) if name.endswith(".onnx")] if found else []
    for name in others:
        other = os.path.join(folder, name)
        if os.path.realpath(other) != path:
            found -= _locations(other)
    return found


def _locations(path):
    try:
        return set(external_files(path))
    except (BundleError, OSError):  # a file of another kind, which is not ours
        return set()


def _is_ours(folder, name):
    match = _NAME.fullmatch(name)
    path = os.path.join(folder, name)
    if not match or os.path.basename(name) != name or os.path.islink(path):
        return False
    return os.path.isfile(path) and digest(path).startswith(match[1])
