"""Opening a checkpoint of any format."""

import os

from keras_seqattn.arguments import path as checked_path
from keras_seqattn.arguments import shown_path
from keras_seqattn.errors import CheckpointError
from keras_seqattn.weights.directory import open_directory
from keras_seqattn.weights.gguf import open_gguf


def open_checkpoint(path):
    """Open a Hugging Face directory or a .gguf file.

    Args:
        path: a directory with config.json and safetensors files, or a GGUF file.

    Returns:
        A `Checkpoint`.

    Raises:
        CheckpointError: the path is neither of these, or a file is damaged.
        InputError: the argument is not a path.
    """
    if path == "":
        raise CheckpointError("the path is empty: give a Hugging Face directory or a .gguf file.")
    path = checked_path(path)
    if os.path.isdir(path):
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
    return open_gguf(path)
