"""The engine between checkpoint names and variables: the same rows read and write."""

import dataclasses
import math

import keras
import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import CheckpointError
from keras_seqattn.weights.rows import WeightRow

_LISTED = 8


@dataclasses.dataclass(frozen=True)
class Table:
    """The rows of a family.

    Attributes:
        body: rows of the model without heads. If the model has the variable of a row, the tensor
            must be in the checkpoint.
        head: rows of the heads of tasks. A checkpoint may have heads that the model does not have;
            they are left out.
        prefix: start of the names of the body in a checkpoint with a head. In a checkpoint without
            a head, the names may lack it.
        renames: old endings of names -> the endings that the rows use.
        constants: checkpoint name -> (layer, attribute), for arrays that our layers compute but
            transformers expects in the file; or the array itself. They are written but not read.
    """

    body: tuple[WeightRow, ...]
    head: tuple[WeightRow, ...] = ()
    prefix: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    constants: dict[str, tuple[str, str] | np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _Group:
    """Tensors of a checkpoint that together fill one or several variables.

    Attributes:
        row: the `WeightRow`.
        paths: paths of the variables.
        names: key of `WeightRow.parts` -> the name with the spelling of the rows.
        keys: key of `WeightRow.parts` -> the name in the checkpoint, for tensors that are there.
    """

    row: WeightRow
    paths: tuple
    names: dict
    keys: dict = dataclasses.field(default_factory=dict)

    def missing(self):
        """The names that are not in the checkpoint."""
        return [name for part, name in self.names.items() if part not in self.keys]


def load_weights(model, checkpoint, table, new_head=False):
    """Fill every variable of a model from a checkpoint, one tensor at a time.

    Args:
        model: a built keras model.
        checkpoint: a `Checkpoint`.
        table: the family's `Table`.
        new_head: the checkpoint may lack weights of the head. They keep their initial values then.

    Returns:
        list of the paths of variables that were not in the checkpoint (empty unless `new_head`).

    Raises:
        CheckpointError: keys are missing or unexpected or have a wrong shape (the message names all
            of them), or a weight is not finite.
    """
    variables = _variables(model)
    groups, leftover = _match(checkpoint, variables, table)
    missing = _missing(variables, groups, table)
    fresh = sorted(_head_variables(variables, table) & set(missing)) if new_head else []
    names = dict.fromkeys(n for path, names in missing.items() if path not in fresh for n in names)
    problems = [("missing", [*names])]
    problems.append(("unexpected", leftover))
    problems.append(("mis-shaped", _mis_shaped(checkpoint, groups, variables)))
    _raise_if_any(checkpoint.path, problems)
    _check_copies(checkpoint, groups, variables)
    for group in groups:
        for path, value in zip(group.paths, _values(checkpoint, group, variables), strict=True):
            variables[path].assign(value)
    return fresh


def count_layers(checkpoint, table, layer="layers_{i}"):
    """The number of layers in a checkpoint: the largest `{i}` of its names plus 1.

    Args:
        checkpoint: a `Checkpoint`.
        table: the family's `Table`.
        layer: start of the variable paths of these layers.

    Returns:
        int.
    """
    names = _canonical_names(checkpoint, table)
    rows = [r for r in table.body if any(path.startswith(f"{layer}/") for path in r.variables)]
    matches = (row.match_tensor(name) for name in names for row in rows)
    return max((int(match[1]["i"]) + 1 for match in matches if match), default=0)


def stored_tensors(model, table, prefixed):
    """The tensors of a model, with the names and shapes of a checkpoint.

    Args:
        model: a built keras model.
        table: the family's `Table`.
        prefixed: whether the names of the body have the prefix of the table.

    Returns:
        (shapes, read): dict of name -> shape in table order, and a function from a name to its
        float32 array.

    Raises:
        CheckpointError: a variable has no row, or a row has the wrong axes.
    """
    variables = _variables(model)
    shapes, sources = {}, {}
    for path in variables:
        group = _group_of(path, variables, table)
        for (place, index), name in group.names.items():
            if not prefixed:
                name = name.removeprefix(table.prefix)
            shapes[name] = group.row.tensor_shape(place, _shapes(group, variables))
            sources[name] = group, place, index
    constants = {
        name if prefixed else name.removeprefix(table.prefix): _constant(model, source)
        for name, source in table.constants.items()
    }
    shapes |= {name: array.shape for name, array in constants.items()}

    # A variable that holds a stack of tensors is converted only once.
    held = {}

    def read(name):
        if name in constants:
            return constants[name]
        group, place, index = sources[name]
        if group.paths not in held:
            held.clear()
            values = [keras.ops.convert_to_numpy(variables[path].value) for path in group.paths]
            held[group.paths] = [np.asarray(value, dtype=np.float32) for value in values]
        tensor = group.row.to_tensor(place, index, held[group.paths])
        if len(group.names) == 1:
            held.clear()
        return tensor

    return shapes, read


def _constant(model, source):
    if isinstance(source, np.ndarray):
        return source
    layer, attribute = source
    return getattr(model.get_layer(layer), attribute)


def _variables(model):
    """Variables by path, without variables that are not weights (seeds of dropout)."""
    return {v.path: v for v in model.variables if not v.path.endswith("seed_generator_state")}


def _shapes(group, variables):
    return [tuple(variables[path].shape) for path in group.paths]


def _canonical_names(checkpoint, table):
    """Names with the spelling of the rows -> names in the checkpoint."""
    names, doubles = {}, []
    for key, name in _spelled(checkpoint.shapes, checkpoint, table):
        if name in names:
            doubles.append(f"{_plain(key)} (also stored as {_plain(names[name])})")
        names[name] = key
    _raise_if_any(checkpoint.path, [("unexpected", doubles)])
    # Other names of a tensor; a file may also give such names to tensors without a row.
    for key, name in _spelled(checkpoint.aliases, checkpoint, table):
        if name not in names and any(row.match_tensor(name) for row in _rows(table)):
            names[name] = key
    return names


def _spelled(keys, checkpoint, table):
    """(key, name with the spelling of the rows) for each key."""
    prefixed = any(key.startswith(table.prefix) for key in checkpoint.shapes)
    for key in keys:
        name = key
        for old, new in table.renames:
            if name.endswith(old):
                name = name.removesuffix(old) + new
        if not prefixed and any(row.match_tensor(table.prefix + name) for row in _rows(table)):
            name = table.prefix + name
        yield key, name


def _rows(table):
    return (*table.body, *table.head)


def _match(checkpoint, variables, table):
    """The groups of the tensors of a checkpoint, and the keys without a row."""
    groups, leftover = {}, []
    for name, key in _canonical_names(checkpoint, table).items():
        found = _group_for(name, variables, table)
        if found is None:
            if key in checkpoint.shapes and not any(r.match_tensor(name) for r in table.head):
                leftover.append(_plain(key))
            continue
        group, part = found
        if group is not None:
            group = groups.setdefault((group.paths, group.row.checkpoint), group)
            group.keys[part] = key
    return list(groups.values()), leftover


def _group_for(name, variables, table):
    """The group of a tensor and its part in it; (None, None) if the tensor is unused.

    The row is the first one whose variables the model has.
    """
    for row in _rows(table):
        match = row.match_tensor(name)
        if match is None:
            continue
        if not row.variables:
            return None, None
        place, numbers = match
        index = int(numbers.pop(row.stacked[0])) if row.stacked else 0
        group = _group(row, numbers, variables)
        if group is not None and (place, index) in group.names:
            return group, (place, index)
    return None


def _group(row, numbers, variables):
    """A group without keys, or None if the model does not have the variables."""
    paths = row.paths(numbers)
    if not all(path in variables for path in paths):
        return None
    names = row.parts(numbers, [tuple(variables[path].shape) for path in paths])
    return _Group(row, paths, names)


def _group_of(path, variables, table):
    """The group, without keys, with which a variable is written."""
    for row in _rows(table):
        match = row.match_variable(path)
        group = match and _group(row, match[1], variables)
        if group:
            return group
    raise CheckpointError(f"no row of the weight table names the variable {path!r}.")


def _missing(variables, groups, table):
    """Variable path -> the missing checkpoint names, for variables with missing tensors."""
    filled = {path for group in groups if not group.missing() for path in group.paths}
    partly = {path: group.missing() for group in groups for path in group.paths}
    partly = {path: names for path, names in partly.items() if names}
    return partly | {
        path: list(_group_of(path, variables, table).names.values())
        for path in variables
        if path not in filled and path not in partly
    }


def _head_variables(variables, table):
    return {path for path in variables if any(row.match_variable(path) for row in table.head)}


def _values(checkpoint, group, variables):
    """The values of a group's variables, in order."""
    tensors = {}
    for part in group.names:
        key = group.keys[part]
        tensors[part] = checkpoint.tensor(key)
        _check_finite(checkpoint, key, tensors[part])
    return group.row.to_variables(tensors, _shapes(group, variables))


def _check_copies(checkpoint, groups, variables):
    """Check copies: a table of several layers may be stored for each, if the copies are equal."""
    firsts, different = {}, []
    for group in groups:
        for place, path in enumerate(group.paths):
            first, index = firsts.setdefault(path, (group, place))
            if first is group or _same_tensors(checkpoint, first, group):
                continue
            values = [_values(checkpoint, g, variables) for g in (first, group)]
            if not np.array_equal(values[0][index], values[1][place]):
                names = [", ".join(map(_plain, g.keys.values())) for g in (group, first)]
                different.append(" and ".join(names))
    _raise_if_any(checkpoint.path, [("different, but one in the model", different)])


def _same_tensors(checkpoint, first, second):
    """Whether two groups read the same tensors in the same way, perhaps under other names."""
    stored = [[checkpoint.stored_name(key) for key in g.keys.values()] for g in (first, second)]
    return stored[0] == stored[1] and first.row.axes == second.row.axes


def _mis_shaped(checkpoint, groups, variables):
    problems = []
    for group in groups:
        for (place, _), key in group.keys.items():
            expected = group.row.tensor_shape(place, _shapes(group, variables))
            stored = checkpoint.shape(key)
            if stored != expected:
                problems.append(f"{_plain(key)} is {shown(stored)}, expected {expected}")
    return problems


def _check_finite(checkpoint, key, value):
    """Refuse weights that are NaN or infinite, because the results would be NaN, too."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(value.sum())
    # A sum of finite weights may also overflow.
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
    """The name of a tensor in a message, which may list many names."""
    return shown(name)[1:-1]
