"""What every checkpoint format is presented as: configuration, assets, tensors on demand."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_seqattn.arguments import path as checked_path
from keras_seqattn.arguments import shown_path
from keras_seqattn.errors import CheckpointError


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. Nothing but its header is in memory; `read` brings one tensor.

    Attributes:
        path: where it came from, for messages.
        config: the Hugging Face configuration (config.json), whatever the file format.
        assets: file name -> bytes of what lies beside the weights (tokenizer, generation settings,
            ...).
        shapes: tensor name -> shape, with Hugging Face names and axis order.
        read: tensor name -> float32 array of that shape.
    """

    path: Path
    config: dict
    assets: dict[str, bytes]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]


def open_checkpoint(path):
    """Open a Hugging Face directory or a .gguf file.

    Args:
        path: a directory that holds config.json and safetensors files, or a GGUF file.

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: the path is neither, or what it holds cannot be trusted.
        InputError: it is not a path.
    """
    if path == "":
        raise CheckpointError("the path is empty: give a Hugging Face directory or a .gguf file.")
    path = checked_path(path)
    if os.path.isdir(path):
        from keras_seqattn.weights.directory import open_directory

        return open_directory(path)
    if not os.path.exists(path):
        raise CheckpointError(
            f"{shown_path(path)}: no such file or directory. Give a Hugging Face directory or a "
            ".gguf file."
        )
    if path.suffix != ".gguf":
        raise CheckpointError(
            f"{path}: not a checkpoint this library reads. Give a directory with config.json and "
            ".safetensors files, or a .gguf file."
        )
    if not os.path.isfile(path):
        raise CheckpointError(f"{path}: is neither a file nor a directory.")
    from keras_seqattn.weights.gguf import open_gguf

    return open_gguf(path)
