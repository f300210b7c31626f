"""Nested arguments and results of models: dicts, lists and tuples, flattened with their paths."""


def leaves(structure, path=()):
    """list of (path, leaf) in the order of the structure. A path is a tuple of keys and indices."""
    if isinstance(structure, dict):
        entries = structure.items()
    elif isinstance(structure, tuple) and hasattr(structure, "_fields"):
        entries = zip(structure._fields, structure, strict=True)
    elif isinstance(structure, list | tuple):
        entries = enumerate(structure)
    else:
        return [(path, structure)]
    return [leaf for key, part in entries for leaf in leaves(part, (*path, key))]


def replaced(structure, values):
    """The same structure with other leaves, which the iterator `values` gives in order."""
    if isinstance(structure, dict):
        return {key: replaced(part, values) for key, part in structure.items()}
    if isinstance(structure, list | tuple):
        parts = [replaced(part, values) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)
    return next(values)


def joined(path):
    """The name of a leaf: the parts of its path with "/" between them."""
    return "/".join(map(str, path))
