"""All inputs and outputs of a model."""

import dataclasses

from keras_seqattn.arguments import shown
from keras_seqattn.errors import InputError

# The attributes of a `Port` that a file itself does not hold, and their values if none is declared.
_EMPTY = {"role": "data", "least": None, "below": None, "most_ones": None, "follows": None}
_DECLARED = tuple(_EMPTY)


@dataclasses.dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a model, in the order of the model.

    Attributes:
        inputs, outputs: tuple of `Port`.
        limits: dimension -> its maximum size for the model.
        totals: dimension -> the two dimensions whose sum it is.
    """

    inputs: tuple
    outputs: tuple
    limits: dict = dataclasses.field(default_factory=dict)
    totals: dict = dataclasses.field(default_factory=dict)

    def __getitem__(self, name):
        """The input with that name."""
        return next(port for port in self.inputs if port.name == name)

    def output(self, name):
        """The output with that name, or None."""
        return next((port for port in self.outputs if port.name == name), None)

    def of_role(self, *roles):
        """list of the inputs with one of the roles."""
        return [port for port in self.inputs if port.role in roles]

    def first(self, *roles):
        """The first input with one of the roles, or None."""
        return next(iter(self.of_role(*roles)), None)

    def given(self, role):
        """The first output with the role, or None."""
        return next((port for port in self.outputs if port.role == role), None)

    @property
    def pasts(self):
        """list of the inputs that a decoder keeps for its own tokens."""
        return [port for port in self.inputs if port.is_past]

    @property
    def carried(self):
        """Input name -> the name of the output that becomes this input."""
        return {port.name: port.follows for port in self.inputs if port.follows is not None}

    @property
    def is_streaming(self):
        """Whether there are pasts and none of them grows. The mask is then for new tokens only."""
        return self.first("length") is not None

    @property
    def longest(self):
        """The maximum number of tokens of a row, or None."""
        axes = {axis for port in (*self.inputs, *self.outputs) for axis in port.axes[1:]}
        return min((size for name, size in self.limits.items() if name in axes), default=None)

    def declaration(self):
        """dict for JSON: what the file itself does not say about its inputs and outputs."""
        sides = {
            side: {port.name: _declared(port) for port in getattr(self, side)}
            for side in ("inputs", "outputs")
        }
        more = {"limits": self.limits, "totals": {k: list(v) for k, v in self.totals.items()}}
        return sides | {name: value for name, value in more.items() if value}

    def with_declaration(self, declaration):
        """The same ports, with the values of a `declaration`.

        Ports that the declaration lacks do not change. Names that only the declaration has are
        ignored, because another program may have renamed or removed the inputs or outputs.

        Raises:
            InputError: the declaration is not valid.
        """
        if not isinstance(declaration, dict):
            raise InputError(f"ports must be an object, not {shown(declaration)}")
        sides = {side: _completed(side, getattr(self, side), declaration) for side in _SIDES}
        limits = _object("limits", declaration)
        for name, size in limits.items():
            if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size < 1 << 31:
                raise InputError(f"limits: {shown(name)} must be an integer from 1 to 2**31 - 1")
        totals = _object("totals", declaration)
        for name, parts in totals.items():
            if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
                raise InputError(f"totals: {shown(name)} must be a list of names")
        return Ports(**sides, limits=limits, totals={k: tuple(v) for k, v in totals.items()})


_SIDES = ("inputs", "outputs")


def matching(ports, given):
    """The ports, where the given ports replace those with the same names.

    Args:
        ports: `Ports`.
        given: list of `Port` for some inputs or outputs.

    Raises:
        InputError: a given port has another number of axes or other sizes, it follows an unknown
            output, two have the same name, or the model has no input or output with its name.
    """
    better = {port.name: port for port in given}
    if len(better) < len(given):
        raise InputError("two of the ports have the same name")
    known = {port.name: port for port in (*ports.outputs, *ports.inputs)}
    for name, port in better.items():
        if name not in known:
            raise InputError(
                f"the model has no input or output {name!r}; it has {', '.join(known)}"
            )
        _check_fits(port, known[name])
        if port.follows is not None and ports.outputs and ports.output(port.follows) is None:
            raise InputError(f"{name} follows {shown(port.follows)}, which is no output")
    sides = {
        side: tuple(better.get(port.name, port) for port in getattr(ports, side)) for side in _SIDES
    }
    return dataclasses.replace(ports, **sides)


def _check_fits(port, own):
    if port.dtype != own.dtype:
        raise InputError(f"{port.name} is {own.dtype} in the model, not {port.dtype}")
    sizes = [size if isinstance(size, int) else None for size in own.axes]
    asked = [size if isinstance(size, int) else None for size in port.axes]
    if sizes != asked:
        raise InputError(f"{port.name} has the axes {own.axes} in the model, not {port.axes}")


def _declared(port):
    values = {name: getattr(port, name) for name in _DECLARED}
    return {name: value for name, value in values.items() if value is not None}


def _completed(side, ports, declaration):
    entries = _object(side, declaration)
    for name, entry in entries.items():
        if not isinstance(entry, dict) or set(entry) - set(_DECLARED):
            raise InputError(f"{side}: {shown(name)} must be an object with {', '.join(_DECLARED)}")
    return tuple(
        dataclasses.replace(port, **_EMPTY | entries[port.name]) if port.name in entries else port
        for port in ports
    )


def _object(name, declaration):
    value = declaration.get(name, {})
    if not isinstance(value, dict):
        raise InputError(f"{name} must be an object, not {shown(value)}")
    return value
