"""Opens a bundle folder: its parts are there, belong together, and stay inside it."""

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
# Hashing takes about 1 s per GB, loading not much more: so large files are hashed on demand only.
_HASHED_ALWAYS = 64 * 2**20
# What the runtime reads beside the graphs; whatever else lies in a bundle is for others.
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
    """What a bundle folder holds.

    Args:
        path: pathlib.Path of the folder.
        graphs: tuple of str, the names of its ONNX files: model.onnx, or of an encoder-decoder
            encoder_model.onnx and decoder_model_merged.onnx.
        config: dict of config.json.
        generation_config: dict of generation_config.json, empty if there is none.
        assets: dict relative file name -> bytes of the other small files that the runtime reads
            (tokenizer, templates, pooling).
    """

    path: pathlib.Path
    graphs: tuple
    config: dict
    generation_config: dict
    assets: dict


def open_bundle(path, check=False):
    """Read and check the folder of a bundle; its ONNX files are not loaded yet.

    Weights outside the folder, files shorter than their graph needs, and files whose size or
    SHA-256 is not the one in parity.json are refused. Files over 64 MiB are hashed with
    `check=True` only, since hashing gigabytes would double the time of loading; their size is
    always compared.

    Args:
        path: the folder.
        check: bool, hash every file that is read, however large; parity.json must list them all.

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
    """The names of the ONNX files that a bundle folder has, or should have.

    Args:
        path: pathlib.Path of the folder.

    Returns:
        tuple of str: model.onnx, or those of an encoder and a decoder where only they are there.
    """
    has_parts = any((path / name).is_file() for name in (ENCODER, DECODER))
    return (ENCODER, DECODER) if has_parts and not (path / MODEL).is_file() else (MODEL,)


def _inside(path, name, reader):
    """The file `name` that `reader` asks for, links followed; BundleError if it is outside."""
    folder = path.resolve()
    try:
        file = (folder / name).resolve()
        file.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a name that no file can have, a loop
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
    """Check the files in which a graph keeps weights, and return their names."""
    found = external_files(path / graph)
    for location, size in found.items():
        # Resolving follows links too, so a link that leads out is refused as well.
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
    """Names of the small files that are there; other folders than the pooling's are others'."""

    def found(names):
        return [name for name in names if _inside(path, name, "a bundle holds").exists()]

    names = found(_ASSETS)
    modules = {name: read_small_file(path / name) for name in names if name == "modules.json"}
    return names + found([pooling_file(modules)])
