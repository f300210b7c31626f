"""A checkpoint of any format: configuration, assets, and tensors that are read on demand."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk. Only its header is in memory; `read` reads one tensor.

    Attributes:
        path: the file or directory, for messages.
        config: the Hugging Face configuration (config.json), for every file format.
        assets: file name -> bytes of the files beside the weights (tokenizer, generation settings,
            ...).
        shapes: tensor name -> shape, with Hugging Face names and axis order.
        read: tensor name -> float32 array of that shape.
        aliases: other names of stored tensors -> their stored names; files of tied weights have
            such names.
    """

    path: Path
    config: dict
    assets: dict[str, bytes]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)

    def stored_name(self, name):
        """The stored name of a tensor."""
        return name if name in self.shapes else self.aliases.get(name, name)

    def shape(self, name):
        """The shape of a tensor, by its stored name or an alias; None if there is none."""
        return self.shapes.get(self.stored_name(name))

    def tensor(self, name):
        """A tensor as float32 array, by its stored name or an alias."""
        return self.read(self.stored_name(name))
