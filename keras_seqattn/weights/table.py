"""The one engine between checkpoint names and variables: rows that read and, inverted, write."""

import dataclasses
import functools
import math
import re

import einops
import keras
import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError

_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Row:
    """One correspondence: checkpoint name, variable path, and how the axes map.

    Attributes:
        checkpoint: name in the checkpoint; `{i}` stands for a number.
        variable: path of the variable, with the same `{i}`; None means that the tensor is
            deliberately unused.
        axes: einops pattern from the checkpoint to the variable, as "o i -> i o"; None keeps them.
            The
            variable's side names single axes; the checkpoint's may group them: "(h d) i -> i h d".
    """

    checkpoint: str
    variable: str | None
    axes: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a family.

    Attributes:
        body: rows of the model proper. Each that the model has a variable for must be in the
            checkpoint.
        head: rows of the tasks' heads. A checkpoint may hold heads that the model lacks; they are
            left out.
        prefix: what names of the body start with in a checkpoint with a head, and may lack in one
            without.
        renames: old endings of names -> the endings that the rows use.
        constants: checkpoint name -> (layer, attribute), for arrays that a layer of ours computes,
            but transformers wants to find; or the array itself. They are written, never read.
    """

    body: tuple[Row, ...]
    head: tuple[Row, ...] = ()
    prefix: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    constants: dict[str, tuple[str, str] | np.ndarray] = dataclasses.field(default_factory=dict)


def load_weights(model, checkpoint, table, new_head=False):
    """Fill every variable of a model from a checkpoint, one tensor at a time.

    Args:
        model: a built keras model.
        checkpoint: a `Checkpoint`.
        table: the family's `Table`.
        new_head: allow the checkpoint to lack weights of the head, which then keep their initial
            values.

    Returns:
        list of the paths of variables that were not in the checkpoint (empty unless `new_head`).

    Raises:
        CheckpointError: keys are missing, unexpected or mis-shaped (all of them are named at once),
            or a weight is not finite.
    """
    variables = _variables(model)
    names = _canonical_names(checkpoint, table)
    rows, leftover = _match(names, variables, table)
    missing = _missing(variables, rows, table)
    fresh = sorted(_head_variables(variables, table) & set(missing)) if new_head else []
    problems = [("missing", [name for path, name in missing.items() if path not in fresh])]
    problems.append(("unexpected", leftover))
    problems.append(("mis-shaped", _mis_shaped(checkpoint, rows, variables)))
    _raise_if_any(checkpoint.path, problems)
    _check_copies(checkpoint, rows)
    for key, (path, axes) in rows.items():
        if path is not None:
            value = checkpoint.read(key)
            _check_finite(checkpoint, key, value)
            variables[path].assign(_forward(value, axes, variables[path].shape))
    return fresh


def dense_rows(checkpoint, variable):
    """The rows of a Dense layer, with or without a bias, that torch stores as `x W' + b`."""
    return (
        Row(f"{checkpoint}.weight", f"{variable}/kernel", "o i -> i o"),
        Row(f"{checkpoint}.bias", f"{variable}/bias"),
    )


def layer_norm_rows(checkpoint, variable):
    """The rows of a LayerNormalization."""
    return (
        Row(f"{checkpoint}.weight", f"{variable}/gamma"),
        Row(f"{checkpoint}.bias", f"{variable}/beta"),
    )


def count_layers(checkpoint, table, layer="layers_{i}"):
    """The number of layers in a checkpoint: one more than the largest `{i}` of its names.

    Args:
        checkpoint: a `Checkpoint`.
        table: the family's `Table`.
        layer: which layers: what the variables of their rows start with.

    Returns:
        int.
    """
    names = _canonical_names(checkpoint, table)
    rows = [row for row in table.body if row.variable and row.variable.startswith(f"{layer}/")]
    patterns = [_regex(row.checkpoint) for row in rows]
    matches = (pattern.fullmatch(name) for name in names for pattern in patterns)
    return max((int(match["i"]) + 1 for match in matches if match), default=0)


def stored_tensors(model, table, prefixed):
    """The tensors of a model as a checkpoint names and shapes them.

    Args:
        model: a built keras model.
        table: the family's `Table`.
        prefixed: whether names of the body carry the table's prefix.

    Returns:
        (shapes, read): dict of name -> shape in table order, and a function from a name to its
        float32 array.

    Raises:
        CheckpointError: a variable has no row, or a row has the wrong axes.
    """
    variables = _variables(model)
    sources = {}
    for path in variables:
        name, axes = _name_of(path, table)
        if not prefixed:
            name = name.removeprefix(table.prefix)
        sources[name] = (path, axes)
    shapes = {
        name: _checkpoint_shape(axes, variables[path].shape)
        for name, (path, axes) in sources.items()
    }
    constants = {
        name if prefixed else name.removeprefix(table.prefix): _constant(model, source)
        for name, source in table.constants.items()
    }
    shapes |= {name: array.shape for name, array in constants.items()}

    def read(name):
        if name in constants:
            return constants[name]
        path, axes = sources[name]
        return _backward(keras.ops.convert_to_numpy(variables[path].value), axes)

    return shapes, read


def _constant(model, source):
    if isinstance(source, np.ndarray):
        return source
    layer, attribute = source
    return getattr(model.get_layer(layer), attribute)


def _variables(model):
    """Variables by path, without those that hold no weights (seeds of dropout)."""
    return {v.path: v for v in model.variables if not v.path.endswith("seed_generator_state")}


def _canonical_names(checkpoint, table):
    """Names as the rows spell them -> names in the checkpoint."""
    prefixed = any(key.startswith(table.prefix) for key in checkpoint.shapes)
    known = [_regex(row.checkpoint) for row in (*table.body, *table.head)]
    names, doubles = {}, []
    for key in checkpoint.shapes:
        name = key
        for old, new in table.renames:
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if not prefixed and any(pattern.fullmatch(table.prefix + name) for pattern in known):
            name = table.prefix + name
        if name in names:
            doubles.append(f"{_plain(key)} (also stored as {_plain(names[name])})")
        names[name] = key
    _raise_if_any(checkpoint.path, [("unexpected", doubles)])
    return names


def _match(names, variables, table):
    """Checkpoint key -> (variable path or None, axes), and the keys that no row takes."""
    rows, leftover = {}, []
    for name, key in names.items():
        found = _variable_of(name, variables, table)
        if found is None:
            leftover.append(_plain(key))
        else:
            rows[key] = found
    return rows, leftover


def _variable_of(name, variables, table):
    """The first row whose variable the model has; one of None, or of another head, is unused."""
    for row in (*table.body, *table.head):
        match = _regex(row.checkpoint).fullmatch(name)
        if match is None:
            continue
        path = row.variable and row.variable.format(**match.groupdict())
        if path is None or path in variables:
            return path, row.axes
    if any(_regex(row.checkpoint).fullmatch(name) for row in table.head):
        return None, None
    return None


def _name_of(path, table):
    """The checkpoint name and axes of a variable."""
    for row in (*table.body, *table.head):
        match = row.variable and _regex(row.variable).fullmatch(path)
        if match:
            return row.checkpoint.format(**match.groupdict()), row.axes
    raise CheckpointError(f"no row of the weight table names the variable {path!r}.")


def _missing(variables, rows, table):
    """Variable path -> checkpoint name, for the variables that no key fills."""
    filled = {path for path, _ in rows.values()}
    return {path: _name_of(path, table)[0] for path in variables if path not in filled}


def _head_variables(variables, table):
    patterns = [_regex(row.variable) for row in table.head if row.variable]
    return {path for path in variables if any(pattern.fullmatch(path) for pattern in patterns)}


def _check_copies(checkpoint, rows):
    """A table that serves several layers may be stored for each of them, if the copies agree."""
    keys, different = {}, []
    for key, (path, axes) in rows.items():
        first = keys.setdefault(path, key)
        if path is None or first == key:
            continue
        if axes != rows[first][1] or not np.array_equal(
            checkpoint.read(first), checkpoint.read(key)
        ):
            different.append(f"{_plain(key)} and {_plain(first)}")
    _raise_if_any(checkpoint.path, [("different, but one in the model", different)])


def _mis_shaped(checkpoint, rows, variables):
    problems = []
    for key, (path, axes) in rows.items():
        if path is not None:
            expected = _checkpoint_shape(axes, variables[path].shape)
            if checkpoint.shapes[key] != expected:
                stored = checkpoint.shapes[key]
                problems.append(f"{_plain(key)} is {shown(stored)}, expected {expected}")
    return problems


def _check_finite(checkpoint, key, value):
    """Refuse weights that are NaN or infinite: the model would give nothing else."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(value.sum())
    # A sum may also overflow.
    if not math.isfinite(total) and not np.isfinite(value).all():
        bad = int(np.count_nonzero(~np.isfinite(value)))
        raise CheckpointError(
            f"{checkpoint.path}: {bad} of the {value.size} values of tensor {shown(key)} are not "
            "finite (as float32): the file is damaged, or the training diverged."
        )


def _raise_if_any(path, problems):
    found = [(kind, items) for kind, items in problems if items]
    if not found:
        return
    parts = []
    for kind, items in found:
        more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
        parts.append(f"{kind}: {', '.join(sorted(items)[:_LISTED])}{more}")
    raise CheckpointError(
        f"{path}: the weights do not fit the model. {'; '.join(parts)}. "
        "Check that config.json belongs to these weights and that the task is the checkpoint's."
    )


def _plain(name):
    """A tensor's name for a message, of which there may be many."""
    return shown(name)[1:-1]


@functools.cache
def _regex(pattern):
    """`{i}` matches a number without leading zeros, the same one wherever it stands."""
    seen = set()

    def group(match):
        name = match.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>0|[1-9][0-9]{{0,8}})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", group, re.escape(pattern)))


def _sizes(axes, variable_shape):
    checkpoint_side, variable_side = (side.strip() for side in axes.split("->"))
    return checkpoint_side, dict(zip(variable_side.split(), variable_shape, strict=True))


def _checkpoint_shape(axes, variable_shape):
    if axes is None:
        return tuple(variable_shape)
    side, sizes = _sizes(axes, variable_shape)
    groups = re.findall(r"\(([^)]*)\)|(\S+)", side)
    return tuple(
        math.prod(sizes[name] for name in (group or single).split()) for group, single in groups
    )


def _forward(value, axes, variable_shape):
    if axes is None:
        return value
    return einops.rearrange(value, axes, **_sizes(axes, variable_shape)[1])


def _backward(value, axes):
    value = np.asarray(value, dtype=np.float32)
    if axes is None:
        return value
    checkpoint_side, variable_side = axes.split("->")
    return einops.rearrange(value, f"{variable_side} -> {checkpoint_side}")
