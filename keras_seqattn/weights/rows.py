"""Rows of a weight table: they map checkpoint names to variables, also many to one."""

import dataclasses
import functools
import re

import einops
import numpy as np

from keras_seqattn.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class WeightRow:
    """One row of a weight table: checkpoint names, variable paths, and a pattern for the axes.

    Most rows have one tensor and one variable. There are three other cases:

    - A tensor holds several variables: `variable` lists them, and `joined` is the axis along which
      they are side by side.
    - A variable holds several tensors: `checkpoint` lists them, and `joined` is that axis.
    - A number in the checkpoint name is not in the variable path: it is an axis of the variable,
      along which one tensor for each index is stacked.

    Attributes:
        checkpoint: a name in the checkpoint, or a tuple of names; `{i}` stands for a number.
        variable: the path of the variable, with the same `{i}`, or a tuple of paths; None means
            that the tensor is not used on purpose.
        axes: einops pattern from the checkpoint to the variable, for example "o i -> i o"; None
            keeps the axes. Both sides may group axes: "(h d) i -> i h d".
        joined: name of the axis along which several tensors or variables are concatenated.
        sizes: name of an axis -> its size, if the shapes of the variables do not tell it. For
            `joined` it is a tuple with the size of each tensor; it is needed if these differ.

    Example:
        # Queries, keys and values of each head are side by side, as in GPT-NeoX.
        WeightRow("qkv.weight", ("query/kernel", "key/kernel", "value/kernel"),
            "(h p d) i -> i (h p d)", joined="p", sizes={"h": 12, "d": 64})
        # One tensor for each expert.
        WeightRow("experts.{e}.w1.weight", "experts/gate", "f m -> e m f")
    """

    checkpoint: str | tuple[str, ...]
    variable: str | tuple[str, ...] | None
    axes: str | None = None
    joined: str | None = None
    sizes: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        several = len(self.tensors) > 1, len(self.variables) > 1
        if all(several) or any(several) != (self.joined is not None):
            raise ConfigError(
                f"weight row {self.checkpoint}: `joined` names the axis along which several "
                "tensors are one variable, or several variables one tensor."
            )
        if len(self.stacked) > 1 or (self.axes is None and (self.stacked or self.joined)):
            raise ConfigError(
                f"weight row {self.checkpoint}: needs `axes` that name the axis `joined`, and "
                f"the one number that the variable's path lacks ({', '.join(self.stacked)})."
            )

    @property
    def tensors(self):
        """A tuple of the names in the checkpoint."""
        return (self.checkpoint,) if isinstance(self.checkpoint, str) else self.checkpoint

    @property
    def variables(self):
        """A tuple of the paths of variables; it is empty if the tensor is unused."""
        if self.variable is None:
            return ()
        return (self.variable,) if isinstance(self.variable, str) else self.variable

    @property
    def stacked(self):
        """The numbers of the checkpoint names that are axes of the variable: none or one."""
        if not self.variables:
            return ()
        return tuple(_numbers(self.tensors[0]) - _numbers(self.variables[0]))

    def match_tensor(self, name):
        """(index of the tensor, its numbers) for a name in a checkpoint, or None."""
        return _match(self.tensors, name)

    def match_variable(self, path):
        """(index of the variable, its numbers) for a path, or None."""
        return _match(self.variables, path)

    def paths(self, numbers):
        """The paths of the variables for these numbers."""
        return tuple(path.format(**numbers) for path in self.variables)

    def parts(self, numbers, shapes):
        """The tensors that hold the variables with these numbers.

        Args:
            numbers: dict of the numbers in names, without those of `stacked`.
            shapes: the shapes of the variables, in order.

        Returns:
            dict of (index of the tensor, index in the stack) -> name. Without a stack, the second
            index is 0.
        """
        count = self._sizes(shapes[0])[self.stacked[0]] if self.stacked else 1
        return {
            (place, index): name.format(**numbers, **dict.fromkeys(self.stacked, index))
            for index in range(count)
            for place, name in enumerate(self.tensors)
        }

    def tensor_shape(self, place, shapes):
        """The shape of a tensor, from the shapes of the variables."""
        if self.axes is None:
            return tuple(shapes[0])
        sizes = self._tensor_sizes(place, shapes)
        side = _groups(self._side(0))
        return tuple(int(np.prod([sizes[name] for name in group], dtype=int)) for group in side)

    def to_variables(self, tensors, shapes):
        """The values of the variables.

        Args:
            tensors: dict with the keys of `parts` -> array.
            shapes: the shapes of the variables, in order.

        Returns:
            list of arrays, in order.
        """
        if self.axes is None:
            return list(tensors.values())
        if not self.stacked:
            return self._unstacked(tensors, 0, shapes)
        indices = sorted({index for _, index in tensors})
        slices = [self._unstacked(tensors, index, shapes) for index in indices]
        return [np.stack(values, self._stack_axis()) for values in zip(*slices, strict=True)]

    def to_tensor(self, place, index, values):
        """One tensor of the checkpoint.

        Args:
            place, index: a key of `parts`.
            values: the arrays of the variables, in order.
        """
        if self.axes is None:
            return values[0]
        shapes = [value.shape for value in values]
        inner = self._inner_side()
        if self.stacked:
            values = [np.take(value, index, self._stack_axis()) for value in values]
        parts = [
            _rearranged(value, self._slice_side(), inner, self._sizes(shape))
            for value, shape in zip(values, shapes, strict=True)
        ]
        if len(self.tensors) > 1:
            start = sum(self._joined_sizes(shapes)[:place])
            window = range(start, start + self._joined_sizes(shapes)[place])
            whole = np.take(parts[0], window, inner.split().index(self.joined))
        else:
            whole = parts[0]
            if self.joined:
                whole = np.concatenate(parts, inner.split().index(self.joined))
        return _rearranged(whole, inner, self._side(0), self._tensor_sizes(place, shapes))

    def _unstacked(self, tensors, index, shapes):
        """The variables without the axis of the stack, from the tensors at one index of it."""
        inner, slices = self._inner_side(), self._slice_side()
        parts = [
            _rearranged(
                tensors[place, index], self._side(0), inner, self._tensor_sizes(place, shapes)
            )
            for place in range(len(self.tensors))
        ]
        sizes = [self._sizes(shape) for shape in shapes]
        if self.joined:
            axis = inner.split().index(self.joined)
            cuts = np.cumsum([size[self.joined] for size in sizes])[:-1]
            parts = np.split(np.concatenate(parts, axis), cuts, axis)
        pairs = zip(parts, sizes, strict=True)
        return [_rearranged(part, inner, slices, size) for part, size in pairs]

    def _side(self, index):
        return self.axes.split("->")[index].strip()

    def _stack_axis(self):
        return _groups(self._side(1)).index(self.stacked)

    def _slice_side(self):
        """The side of the variable without the axis of the stack."""
        names = self._side(1).split()
        return " ".join(name for name in names if name not in self.stacked)

    def _inner_side(self):
        """The side of the checkpoint with every axis separate."""
        return " ".join(name for group in _groups(self._side(0)) for name in group)

    def _sizes(self, shape):
        """The size of each axis, from the shape of a variable."""
        known = {name: size for name, size in self.sizes.items() if name != self.joined}
        groups = _groups(self._side(1))
        for group, size in zip(groups, shape, strict=True):
            unknown = [name for name in group if name not in known]
            rest = int(np.prod([known[name] for name in group if name in known], dtype=int))
            if len(unknown) > 1 or not rest or size % rest or (not unknown and size != rest):
                raise ConfigError(
                    f"weight row {self.checkpoint}: {self.axes!r} with sizes {known} does "
                    f"not fit a variable of shape {tuple(shape)}."
                )
            known |= dict.fromkeys(unknown, size // rest)
        return known

    def _tensor_sizes(self, place, shapes):
        sizes = self._sizes(shapes[0])
        if self.joined:
            sizes[self.joined] = (
                self._joined_sizes(shapes)[place]
                if len(self.tensors) > 1
                else sum(self._sizes(shape)[self.joined] for shape in shapes)
            )
        return sizes

    def _joined_sizes(self, shapes):
        """The sizes of several tensors along `joined`."""
        total, count = self._sizes(shapes[0])[self.joined], len(self.tensors)
        sizes = self.sizes.get(self.joined, (total // count,) * count)
        if sum(sizes) != total or len(sizes) != count:
            raise ConfigError(
                f"weight row {self.checkpoint}: {count} tensors of {sizes} are not the "
                f"{total} of the variable along {self.joined!r}."
            )
        return sizes


def dense_rows(checkpoint, variable):
    """The rows of a Dense layer that torch stores as `x W' + b`, with or without a bias."""
    return (
        WeightRow(f"{checkpoint}.weight", f"{variable}/kernel", "o i -> i o"),
        WeightRow(f"{checkpoint}.bias", f"{variable}/bias"),
    )


def layer_norm_rows(checkpoint, variable):
    """The rows of a LayerNormalization."""
    return (
        WeightRow(f"{checkpoint}.weight", f"{variable}/gamma"),
        WeightRow(f"{checkpoint}.bias", f"{variable}/beta"),
    )


def attention_rows(checkpoint, variable, names=("q_proj", "k_proj", "v_proj", "out_proj")):
    """The rows of an attention whose four projections are Dense layers.

    Args:
        checkpoint: start of the checkpoint names.
        variable: path of the `MultiHeadAttention`.
        names: names of the projections of queries, keys, values and the result.
    """
    pairs = zip(names, ("query", "key", "value", "output_dense"), strict=True)
    rows = [dense_rows(f"{checkpoint}.{theirs}", f"{variable}/{ours}") for theirs, ours in pairs]
    return tuple(row for pair in rows for row in pair)


def fused_rows(checkpoint, variables, axes, joined, **sizes):
    """The rows of several Dense layers whose weights are one tensor, with or without biases.

    Args:
        checkpoint: start of the checkpoint names of the weight and of the bias.
        variables: paths of the layers.
        axes: axes of the weight, as in `WeightRow`. The axis of the input is `i`; the bias has the
            other axes.
        joined, sizes: as in `WeightRow`.
    """
    bias = re.sub(r"\bi\b", "", axes)
    return (
        WeightRow(
            f"{checkpoint}.weight", tuple(f"{v}/kernel" for v in variables), axes, joined, sizes
        ),
        WeightRow(f"{checkpoint}.bias", tuple(f"{v}/bias" for v in variables), bias, joined, sizes),
    )


def _match(patterns, name):
    for place, pattern in enumerate(patterns):
        match = _regex(pattern).fullmatch(name)
        if match:
            return place, match.groupdict()
    return None


def _rearranged(value, before, after, sizes):
    names = {name for group in _groups(before) for name in group}
    known = {name: size for name, size in sizes.items() if name in names}
    return einops.rearrange(value, f"{before} -> {after}", **known)


@functools.cache
def _groups(side):
    """The axes of one side of a pattern: a tuple of names for each dimension."""
    found = re.findall(r"\(([^)]*)\)|(\S+)", side)
    return tuple(tuple((group or single).split()) for group, single in found)


@functools.cache
def _numbers(pattern):
    return frozenset(re.findall(r"\{(\w+)\}", pattern))


@functools.cache
def _regex(pattern):
    """`{i}` matches a number without leading zeros, the same number at every place."""
    seen = set()

    def group(match):
        name = match.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>0|[1-9][0-9]{{0,8}})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(pattern)))
