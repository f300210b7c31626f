"""Opens a bundle folder: its parts are there, belong together, and stay inside it."""

import dataclasses
import hashlib
import json
import pathlib

from keras_seqattn import arguments
from keras_seqattn.errors import BundleError
from keras_seqattn.runtime.external_data import external_files

MODEL = "model.onnx"
ENCODER, DECODER = "encoder_model.onnx", "decoder_model_merged.onnx"
_ASSET_LIMIT = 64 * 2**20
# Hashing takes about 1 s per GB, loading not much more: so large files are hashed on demand only.
_HASHED_ALWAYS = 64 * 2**20


@dataclasses.dataclass(frozen=True)
class Bundle:
    """What a bundle folder holds.

    Args:
        path: pathlib.Path of the folder.
        graphs: tuple of str, the names of its ONNX files: model.onnx, or of an encoder-decoder
            encoder_model.onnx and decoder_model_merged.onnx.
        config: dict of config.json.
        generation_config: dict of generation_config.json, empty if there is none.
        assets: dict relative file name -> bytes of the other small files (tokenizer, templates,
            pooling).
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
        check: bool, hash every file that parity.json names, however large; parity.json must exist.

    Raises:
        BundleError: something is missing, inconsistent or unsafe.
    """
    path = arguments.path(path, "the bundle")
    if not path.is_dir():
        raise BundleError(f"{path} is not a folder: a bundle is a folder with {MODEL} in it")
    graphs = _graphs(path)
    for name in (*graphs, "config.json"):
        if not (path / name).is_file():
            raise BundleError(f"{path} is not a bundle: {name} is missing")
    for name in graphs:
        _check_external_data(path, name)
    _check_digests(path, check)
    assets = _read_assets(path)
    return Bundle(
        path=path,
        graphs=graphs,
        config=_parse(path, "config.json"),
        generation_config=(
            _parse(path, "generation_config.json") if "generation_config.json" in assets else {}
        ),
        assets=assets,
    )


def _graphs(path):
    has_parts = any((path / name).is_file() for name in (ENCODER, DECODER))
    return (ENCODER, DECODER) if has_parts and not (path / MODEL).is_file() else (MODEL,)


def _parse(path, name):
    try:
        value = json.loads((path / name).read_bytes())
    except ValueError as error:
        raise BundleError(f"{path / name} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BundleError(f"{path / name} must hold a JSON object")
    return value


def _check_external_data(path, graph):
    folder = path.resolve()
    for location, size in external_files(path / graph).items():
        # Resolving follows links too, so a link that leads out is refused as well.
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise BundleError(
                f"{path / graph} keeps weights in {location!r}, which is outside the bundle: "
                "such a file is not opened"
            )
        if not file.is_file():
            raise BundleError(f"{path / location} is missing: {graph} keeps weights in it")
        if file.stat().st_size < size:
            raise BundleError(
                f"{path / location} has {file.stat().st_size} bytes, and {graph} needs {size}: "
                "it is cut off or belongs to another export"
            )


def _check_digests(path, check):
    if not (path / "parity.json").is_file():
        if check:
            raise BundleError(f"{path} has no parity.json to check against")
        return
    digests = _parse(path, "parity.json").get("files")
    entries = digests.values() if isinstance(digests, dict) else [None]
    if not all(isinstance(entry, dict) and {"sha256", "size"} <= set(entry) for entry in entries):
        raise BundleError(f"{path / 'parity.json'} does not list the bundle's files")
    folder = path.resolve()
    for name, expected in digests.items():
        file = (folder / name).resolve()
        if not file.is_relative_to(folder) or not file.is_file():
            raise BundleError(f"{path / name} is missing: parity.json lists it")
        size = file.stat().st_size
        differs = size != expected["size"]
        if not differs and (check or size <= _HASHED_ALWAYS):
            differs = _digest(file) != expected["sha256"]
        if differs:
            raise BundleError(
                f"{path / name} is not the file that parity.json was written for: export again"
            )


def _digest(file):
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_assets(path):
    """The small files of the folder and of its subfolders (1_Pooling/config.json)."""
    files = [file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.is_file()]
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in files
        if file.suffix in (".json", ".jinja", ".txt") and file.stat().st_size <= _ASSET_LIMIT
    }
