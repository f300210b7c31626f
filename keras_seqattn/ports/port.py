"""One input or output of a model, as data."""

import dataclasses

from keras_seqattn.arguments import shown
from keras_seqattn.errors import InputError

# Role -> what its values are.
ROLES = {
    "tokens": "ids of tokens",
    "targets": "ids of tokens that a decoder is given",
    "mask": "1 for real tokens, 0 for padding",
    "source_mask": "the mask of what an encoder has read",
    "global_mask": "1 for tokens that attend to all and are attended by all",
    "token_types": "for each token, the number of its text: 0 or 1 for a pair of texts",
    "positions": "the positions of tokens",
    "pixels": "pictures",
    "features": "vectors for each moment, such as a spectrum",
    "nodes": "what the nodes of a graph are",
    "distances": "distances between nodes",
    "slot": "the position in the cache for the first new token",
    "cache": "keys or values of earlier tokens, which grow",
    "source_cache": "keys or values of what an encoder has read",
    "state": "a summary of the earlier tokens, of a fixed size",
    "length": "how many real tokens a streaming decoder has read",
    "context": "what an encoder gives to its decoder",
    "logits": "scores before a softmax",
    "hidden_states": "a vector for each token",
    "pooled": "a vector for each row",
    "scores": "attention scores",
    "data": "anything else",
}
# The roles of what a decoder keeps for its own tokens from one step to the next.
_PASTS = frozenset({"cache", "state", "length"})
_CACHES = frozenset({"cache", "source_cache"})


@dataclasses.dataclass(frozen=True)
class Port:
    """One input or output.

    Attributes:
        name: the name in the file.
        role: its purpose, one of `ROLES`.
        axes: for each axis its size, or the name of a dimension whose size is known at run time.
        dtype: the type of the values in the file, such as "int64".
        least, below: valid integers are >= `least` and < `below`. None means no limit.
        most_ones: for a mask, the maximum number of ones per row. None means no limit.
        follows: for an input, the name of the output that becomes this input (an output of the step
            before, or of the encoder). None for an input that the user gives.

    Raises:
        InputError: an attribute is not valid.
    """

    name: str
    role: str = "data"
    axes: tuple = ()
    dtype: str = "float32"
    least: int | None = None
    below: int | None = None
    most_ones: int | None = None
    follows: str | None = None

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"the name of a port must be a text, not {shown(self.name)}")
        if not isinstance(self.role, str) or self.role not in ROLES:
            raise InputError(
                f"{self.name}: unknown role {shown(self.role)}; choose one of {', '.join(ROLES)}"
            )
        if not isinstance(self.axes, list | tuple):
            raise InputError(f"{self.name}: axes must be a list, not {shown(self.axes)}")
        object.__setattr__(self, "axes", tuple(self.axes))
        for axis in self.axes:
            if not (isinstance(axis, str) and axis) and not _is_size(axis):
                raise InputError(
                    f"{self.name}: an axis is a size or the name of a dimension, not {shown(axis)}"
                )
        for name in ("least", "below", "most_ones"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise InputError(
                    f"{self.name}: {name} must be an integer or None, not {shown(value)}"
                )
        if self.least is not None and self.below is not None and self.least >= self.below:
            raise InputError(
                f"{self.name}: no integer is >= {shown(self.least)} and < {shown(self.below)}"
            )
        if self.follows is not None and not isinstance(self.follows, str):
            raise InputError(
                f"{self.name}: follows must be the name of an output, not {shown(self.follows)}"
            )

    @property
    def is_past(self):
        """Whether a decoder keeps this input for its own tokens. Each beam has its own values."""
        return self.role in _PASTS

    @property
    def grown_axis(self):
        """The axis of a cache that grows with the number of tokens, or None."""
        if self.role not in _CACHES:
            return None
        named = (axis for axis, size in enumerate(self.axes) if axis and isinstance(size, str))
        return next(named, None)

    @property
    def is_integer(self):
        """Whether the values are integers."""
        return "int" in self.dtype


def _is_size(axis):
    return isinstance(axis, int) and not isinstance(axis, bool) and axis >= 0
