"""What every checkpoint format is presented as: configuration, assets, tensors on demand."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np


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
        aliases: other names of stored tensors -> the names that these are stored under, as files
            have them of tied weights.
    """

    path: Path
    config: dict
    assets: dict[str, bytes]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)

    def stored_name(self, name):
        """The name that a tensor is stored under."""
        return name if name in self.shapes else self.aliases.get(name, name)

    def shape(self, name):
        """The shape of a tensor by either of its names, or None if there is none."""
        return self.shapes.get(self.stored_name(name))

    def tensor(self, name):
        """float32 array, a tensor by either of its names."""
        return self.read(self.stored_name(name))
