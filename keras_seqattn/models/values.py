"""Kinds of values in a configuration: each has a check (`accepts`) and a name for messages."""

import dataclasses

# Sizes and numbers of tokens are int32 on every backend.
MOST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 1
    most: int = MOST

    def accepts(self, value):
        return type(value) is int and self.least <= value <= self.most

    def __str__(self):
        above = f", at most {self.most}" if self.most < MOST else ""
        return f"a whole number, {self.least} or more{above} (below 2**31)"


@dataclasses.dataclass(frozen=True)
class Real:
    """A finite number from `least` to `most`; `open` excludes `least`, `below` excludes `most`."""

    least: float
    most: float
    open: bool = False
    below: bool = False

    def accepts(self, value):
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        # A NaN is not in the range.
        inside = self.least <= value <= self.most
        return inside and not (
            self.open and value == self.least or self.below and value == self.most
        )

    def __str__(self):
        least = "above" if self.open else "from"
        most = "below" if self.below else "to"
        return f"a number {least} {self.least:g} {'and ' * self.below}{most} {self.most:g}"


@dataclasses.dataclass(frozen=True)
class Flag:
    """True or false."""

    def accepts(self, value):
        return isinstance(value, bool)

    def __str__(self):
        return "true or false"


@dataclasses.dataclass(frozen=True)
class Text:
    """A string; if there are `options`, one of them."""

    options: tuple = ()

    def accepts(self, value):
        return isinstance(value, str) and (not self.options or value in self.options)

    def __str__(self):
        return f"one of {', '.join(self.options)}" if self.options else "a string"


@dataclasses.dataclass(frozen=True)
class Activation:
    """The name of an activation; `read_settings` replaces it by the name of our function."""

    def accepts(self, value):
        return isinstance(value, str)

    def __str__(self):
        return "the name of an activation"


@dataclasses.dataclass(frozen=True)
class Nullable:
    """Null, or a value of a kind."""

    kind: object

    def accepts(self, value):
        return value is None or self.kind.accepts(value)

    def __str__(self):
        return f"{self.kind}, or null"


@dataclasses.dataclass(frozen=True)
class Listed:
    """A list of values of a kind; with `alone`, also a single value."""

    kind: object
    alone: bool = False

    def accepts(self, value):
        if isinstance(value, list):
            return all(self.kind.accepts(item) for item in value) and not (self.alone and not value)
        return self.alone and self.kind.accepts(value)

    def __str__(self):
        return f"{self.kind}, or a list of such" if self.alone else f"a list, each {self.kind}"


@dataclasses.dataclass(frozen=True)
class Members:
    """An object whose keys are names."""

    def accepts(self, value):
        return isinstance(value, dict) and all(isinstance(key, str) for key in value)

    def __str__(self):
        return "an object"


@dataclasses.dataclass(frozen=True)
class Labels:
    """An object with the number of every label, beginning at 0, and its name."""

    def accepts(self, value):
        if not isinstance(value, dict) or not all(isinstance(name, str) for name in value.values()):
            return False
        return {str(key) for key in value} == {str(index) for index in range(len(value))}

    def __str__(self):
        return "an object with a name for each of the labels 0, 1, and so on"


SIZE = Whole()
OPTIONAL_SIZE = Nullable(SIZE)
FLAG = Flag()
RATE = Real(0, 1, below=True)
# Smaller values have no effect beside the variance in float32.
EPSILON = Real(1e-20, 1)
# The standard deviation of new weights.
SPREAD = Real(0, 1000)
TEXT = Text()
LAYER_NUMBERS = Nullable(Listed(Whole(0)))
TOKEN = Nullable(Whole(0))
TOKENS = Nullable(Listed(Whole(0), alone=True))
