"""Hugging Face directories: config.json, safetensors files, and the files beside them."""

import json
import math
import os
import re
from pathlib import Path

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError
from keras_seqattn.files import FolderTarget, listed_files
from keras_seqattn.json_objects import read_object, read_small_file
from keras_seqattn.weights.checkpoint import Checkpoint
from keras_seqattn.weights.safetensors import MAX_TENSORS, read_names, read_tensor, write_file

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ASSETS = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
)
_SHARD_BYTES = 5_000_000_000
_SHARD = re.compile(r"model-[0-9]{5,}-of-[0-9]{5,}\.safetensors")


def open_directory(path):
    """Open a Hugging Face directory.

    The names in an index must not lead out of the directory. Links in the directory are followed,
    because download caches consist of links.

    Args:
        path: the directory.

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: a file is missing, damaged, or disagrees with the index.
    """
    path = Path(path)
    if not is_file(path / "config.json"):
        raise CheckpointError(
            f"{path}: has no config.json, so it is not a Hugging Face model directory."
        )
    if is_file(path / WEIGHTS):
        shapes, aliases = read_names(path / WEIGHTS)
        files = dict.fromkeys(shapes, WEIGHTS)
    else:
        files = _indexed_files(path)
        shapes, aliases = _indexed_shapes(path, files)
    return Checkpoint(
        path=path,
        config=read_object(path / "config.json", CheckpointError),
        assets={
            name: read_small_file(path / name, CheckpointError)
            for name in ASSETS
            if is_file(path / name)
        },
        shapes=shapes,
        read=lambda name: read_tensor(path / files[name], name),
        aliases=aliases,
    )


def write_directory(path, config, assets, shapes, read, shard_bytes=_SHARD_BYTES):
    """Write a Hugging Face directory completely or not at all.

    Args:
        path: the directory, which is made if it does not exist. If it holds a model, its
            config.json, its weights and the assets that are written now are replaced, and all other
            files stay. In any other directory, files with these names are kept under names that end
            in .kept, with a warning.
        config: dict for config.json.
        assets: file name -> bytes.
        shapes: dict of tensor name -> shape.
        read: function from a name to its float32 array; it is called once per tensor, in order.
        shard_bytes: larger weights are split into several files.

    Raises:
        CheckpointError: the directory cannot be written, or is an exported bundle.
    """
    place = FolderTarget(path, CheckpointError, _refuse_bundle, _replaceable, (WEIGHTS, INDEX))
    for name in assets:
        _inside(place.path, name, "asset")
    with place.staged() as staging:
        staging = Path(staging)
        for name, content in assets.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
        write_json(staging / "config.json", config)
        _write_weights(staging, shapes, read, shard_bytes)


def write_json(path, value):
    """Write `value` as an indented JSON file."""
    Path(path).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_file(path):
    """Whether the path is a file or a link to a file.

    Args:
        path: pathlib.Path.

    Raises:
        CheckpointError: the path is something else: a directory, a device, a broken link.
    """
    if os.path.isfile(path):
        return True
    if os.path.lexists(path):
        raise CheckpointError(f"{path}: is not a file, nor a link to one.")
    return False


def _indexed_files(path):
    """Tensor name -> file name, from the index."""
    if not is_file(path / INDEX):
        raise CheckpointError(
            f"{path}: has neither {WEIGHTS} nor {INDEX}. Pickled weights (.bin, .pt) are not "
            f"read, since opening "
            "them can run code; convert them with `save_pretrained` of transformers."
        )
    files = read_object(path / INDEX, CheckpointError).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise CheckpointError(f"{path / INDEX}: has no valid 'weight_map'.")
    if len(files) > MAX_TENSORS:
        raise CheckpointError(
            f"{path / INDEX}: names {len(files)} tensors; up to {MAX_TENSORS} are read."
        )
    for file in sorted(set(files.values())):
        _inside(path, file, "shard")
        if not is_file(path / file):
            raise CheckpointError(
                f"{path / INDEX}: names the shard {shown(file)}, which is missing."
            )
    return files


def _indexed_shapes(path, files):
    headers = {file: read_names(path / file) for file in sorted(set(files.values()))}
    shapes = {}
    for name, file in files.items():
        if name not in headers[file][0]:
            raise CheckpointError(
                f"{path / INDEX}: tensor {shown(name)} is not in {file}, where the index puts it."
            )
        shapes[name] = headers[file][0][name]
    others = [pair for _, aliases in headers.values() for pair in aliases.items()]
    return shapes, {name: kept for name, kept in others if kept in shapes and name not in shapes}


def _inside(directory, name, kind):
    """Refuse names that lead out of the directory."""
    parts = Path(name).parts
    if not parts or Path(name).is_absolute() or ".." in parts or "\\" in name or "\0" in name:
        raise CheckpointError(
            f"{directory}: the {kind} name {shown(name)} leads out of the directory; refused."
        )


def _write_weights(directory, shapes, read, shard_bytes):
    shards, size = [{}], 0
    for name, shape in shapes.items():
        tensor_bytes = 4 * math.prod(shape)
        if shards[-1] and size + tensor_bytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += tensor_bytes
    if len(shards) == 1:
        write_file(directory / WEIGHTS, shapes, read)
        return
    files = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(directory / file, shard, read)
        files.update(dict.fromkeys(shard, file))
    total = sum(4 * math.prod(shape) for shape in shapes.values())
    write_json(directory / INDEX, {"metadata": {"total_size": total}, "weight_map": files})


def _refuse_bundle(folder):
    if listed_files(folder) is not None:
        raise CheckpointError(
            f"{folder} is an exported bundle, which would no longer be whole: save elsewhere."
        )


def _replaceable(folder, names):
    """The names of files of the older model that the new model replaces."""
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        return set()
    try:
        if not isinstance(
            read_object(folder / "config.json", CheckpointError).get("model_type"), str
        ):
            return set()
        shards = (
            read_object(folder / INDEX, CheckpointError).get("weight_map")
            if (folder / INDEX).is_file()
            else {}
        )
    except CheckpointError:
        return set()
    found = {"config.json", WEIGHTS, INDEX} | names
    for file in shards.values() if isinstance(shards, dict) else ():
        if isinstance(file, str) and _SHARD.fullmatch(file):
            found.add(file)
    return {name for name in found if (folder / name).is_file()}
