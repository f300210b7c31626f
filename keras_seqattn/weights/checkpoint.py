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
    """

    path: Path
    config: dict
    assets: dict[str, bytes]
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], np.ndarray]
