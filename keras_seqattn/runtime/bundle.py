"""Opens a bundle folder. Its parts must exist, belong together, and stay inside the folder."""

import dataclasses
import pathlib

from keras_seqattn import arguments
from keras_seqattn.errors import BundleError, first_line
from keras_seqattn.files import digest, listed_files
from keras_seqattn.json_objects import parse_object, read_object, read_small_file
from keras_seqattn.runtime.config import check_config
from keras_seqattn.runtime.external_data import external_files
from keras_seqattn.runtime.pooling import pooling_file

MODEL = "model.onnx"
ENCODER, DECODER = "encoder_model.onnx", "decoder_model_merged.onnx"
# To hash takes about 1 s per GB, and to load is not much slower. So large files are hashed only if
# `check` asks for it.
_HASHED_ALWAYS = 64 * 2**20
# The files that the runtime reads besides the graphs. Other files in a bundle are ignored.
_ASSETS = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "modules.json",
    "sentence_bert_config.json",
)


@dataclasses.dataclass(frozen=True)
class Bundle:
    """The content of a bundle folder.

    Args:
        path: pathlib.Path of the folder.
        graphs: tuple of str, the names of its ONNX files: model.onnx, or for an encoder-decoder
            encoder_model.onnx and decoder_model_merged.onnx.
        config: dict of config.json.
        generation_config: dict of generation_config.json, empty if there is none.
        assets: dict of relative file name -> bytes of the other small files that the runtime reads
            (tokenizer, templates, pooling).
    """

    path: pathlib.Path
    graphs: tuple
    config: dict
    generation_config: dict
    assets: dict


def open_bundle(path, check=False):
    """Read and check the folder of a bundle. Its ONNX files are not loaded yet.

    These files are refused: weights outside the folder, files that are shorter than their graph
    needs, and files whose size or SHA-256 differs from parity.json. The size is always compared.
    Files over 64 MiB are hashed only with `check=True`, because to hash gigabytes would double the
    time of loading.

    Args:
        path: the folder.
        check: bool, hash every file that is read, even large ones. parity.json must list them all.

    Raises:
        BundleError: something is missing, inconsistent or unsafe.
    """
    path = arguments.path(path, "the bundle")
    if not path.is_dir():
        raise BundleError(f"{path} is not a folder: a bundle is a folder with {MODEL} in it")
    graphs = graph_names(path)
    for name in (*graphs, "config.json"):
        if not _inside(path, name, "a bundle holds").is_file():
            raise BundleError(f"{path} is not a bundle: {name} is missing")
    data = [location for name in graphs for location in _check_external_data(path, name)]
    assets = _asset_names(path)
    _check_digests(path, [*graphs, "config.json", *data, *assets], check)
    assets = {name: read_small_file(path / name) for name in assets}
    config = read_object(path / "config.json")
    check_config(config, path / "config.json")
    name = "generation_config.json"
    generation = parse_object(assets[name], path / name) if name in assets else {}
    return Bundle(path, graphs, config, generation, assets)


def graph_names(path):
    """The names of the ONNX files of a bundle folder. They may be missing.

    Args:
        path: pathlib.Path of the folder.

    Returns:
        tuple of str: model.onnx, or the files of an encoder and a decoder if only these exist.
    """
    has_parts = any((path / name).is_file() for name in (ENCODER, DECODER))
    return (ENCODER, DECODER) if has_parts and not (path / MODEL).is_file() else (MODEL,)


def _inside(path, name, reader):
    """The file `name` that `reader` asks for, after links. BundleError if it is outside."""
    folder = path.resolve()
    try:
        file = (folder / name).resolve()
        file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a name that cannot exist, or a loop
        raise BundleError(
            f"{path}: {reader} {name[:200]!r}, which cannot be opened: {first_line(error)}"
        ) from None
    if not file.is_relative_to(folder):
        raise BundleError(
            f"{path}: {reader} {name[:200]!r}, which is outside the bundle: such a file is not "
            "opened"
        )
    return file


def _check_external_data(path, graph):
    """Check the files with the weights of a graph, and return their names."""
    found = external_files(path / graph)
    for location, size in found.items():
        # `_inside` follows links too, so a link to the outside is refused.
        file = _inside(path, location, f"{graph} keeps weights in")
        if not file.is_file():
            raise BundleError(f"{path / location} is missing: {graph} keeps weights in it")
        if file.stat().st_size < size:
            raise BundleError(
                f"{path / location} has {file.stat().st_size} bytes, and {graph} needs {size}: "
                "it is cut off or belongs to another export"
            )
    return list(found)


def _check_digests(path, names, check):
    """Compare the files that parity.json lists, and check that it lists all of `names`."""
    listing = path / "parity.json"
    if not listing.is_file():
        if check:
            raise BundleError(f"{path} has no parity.json to check against")
        return
    read_object(listing)
    expected = listed_files(path)
    if expected is None:
        raise BundleError(f"{listing} does not list the bundle's files")
    missing = sorted(set(names) - set(expected))
    if check and missing:
        raise BundleError(f"{path / missing[0]} is not in parity.json, which must list every file")
    for name, (size, sha256) in expected.items():
        file = _inside(path, name, "parity.json lists")
        if not file.is_file():
            raise BundleError(f"{path / name} is missing: parity.json lists it")
        differs = file.stat().st_size != size
        if not differs and (check or size <= _HASHED_ALWAYS):
            differs = digest(file) != sha256
        if differs:
            raise BundleError(
                f"{path / name} is not the file that parity.json was written for: export again"
            )


def _asset_names(path):
    """Names of the small files that exist. The only folder that is read is that of pooling."""

    def found(names):
        return [name for name in names if _inside(path, name, "a bundle holds").exists()]

    names = found(_ASSETS)
    modules = {name: read_small_file(path / name) for name in names if name == "modules.json"}
    return names + found([pooling_file(modules)])
