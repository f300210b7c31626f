"""The largest integers that an input may hold, because the graph looks them up in tables."""

import dataclasses

import numpy as np

from keras_seqattn.ports import Ports

# Operators whose output holds all integers of their first input. A slice would hold some: what
# limits those, need not limit the others.
_MOVES = frozenset("Cast Identity Reshape Squeeze Unsqueeze Transpose Expand Tile Flatten".split())
_LOOKUPS = frozenset(["Gather", "GatherElements", "ScatterElements"])


def with_index_limits(ports, graph):
    """The ports, in which integer inputs that are indices of tables have the limit `below`.

    onnxruntime refuses other indices in the middle of a graph, with a message about a node.

    Args:
        ports: `Ports`. A limit that is declared is kept.
        graph: `onnx_ir.Graph` whose inputs they are.
    """
    values = {value.name: value for value in graph.inputs}
    inputs = tuple(_limited(port, values[port.name]) for port in ports.inputs)
    return Ports(inputs, ports.outputs, ports.limits, ports.totals)


def _limited(port, value):
    if not port.is_integer or port.below is not None:
        return port
    limits = [limit for limit in _limits(value, 0, set()) if limit > 0]
    return dataclasses.replace(port, below=min(limits)) if limits else port


def _limits(value, added, seen):
    """The limits of an input, one for each lookup that reads it.

    Args:
        value: `onnx_ir.Value` with the integers of the input plus `added`.
        added: int.
        seen: set of (value, added) that were visited, to which they are added.
    """
    if (value, added) in seen:
        return
    seen.add((value, added))
    for use in value.uses():
        node, place = use.node, use.idx
        # The body of a loop or a branch may never run.
        if node.graph is not value.graph:
            continue
        if node.op_type in _LOOKUPS and place == 1:
            limit = _table_size(node)
            if limit is not None:
                yield limit - added
        elif node.op_type in _MOVES and place == 0:
            for output in node.outputs:
                yield from _limits(output, added, seen)
        elif node.op_type in ("Add", "Sub"):
            constant = node.inputs[1 - place]
            if constant.const_value is not None and (node.op_type == "Add" or place == 0):
                numbers = constant.const_value.numpy() * (1 if node.op_type == "Add" else -1)
                if numbers.size and numbers.dtype == np.int64:
                    yield from _limits(node.outputs[0], added + int(numbers.max()), seen)


def _table_size(node):
    """The size of the axis in which a node looks up, or None if it is known only at run time."""
    shape = node.inputs[0].shape
    axis = node.attributes["axis"].as_int() if "axis" in node.attributes else 0
    size = None if shape is None else shape[axis]
    return size if isinstance(size, int) else None
