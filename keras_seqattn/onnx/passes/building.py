"""Edits of a graph for the rewrites: insert nodes, replace values, add constants.

Every rewrite after the trace builds its nodes here.
"""

import numpy as np
import onnx_ir as ir


def insert(before, op_type, inputs, attributes=None, domain="", *, name, outputs=None):
    """Put a node before another one.

    Args:
        before: the next node, in the main graph or in a body.
        op_type, inputs, attributes, domain: those of the new node.
        name: name of the node.
        outputs: list of `onnx_ir.Value`. None makes one with the name of the node.

    Returns:
        The output, or a list of them if `outputs` was given.
    """
    values = [ir.Value(name=name)] if outputs is None else outputs
    node = ir.node(op_type, inputs, attributes or {}, domain=domain, outputs=values, name=name)
    before.graph.insert_before(before, node)
    return values[0] if outputs is None else values


def replace_nodes(graph, old, op_type, inputs, attributes=None, domain=""):
    """Replace nodes by one node with one output.

    Args:
        graph: the `onnx_ir.Graph`.
        old: the nodes, in graph order. The new node takes the name and the output of the last one.
        op_type, inputs, attributes, domain: those of the new node.
    """
    name, output = old[-1].name, old[-1].outputs[0]
    value = like(output.name, output)
    insert(old[0], op_type, inputs, attributes, domain, name=name, outputs=[value])
    ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
    graph.remove(old[::-1], safe=True)


def replace_by_value(node, value):
    """Replace the output of a node by a value, which takes its name. Remove the node."""
    old = node.outputs[0]
    value.shape, value.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    value.name = old.name


def like(name, value, shape=None):
    """A new value with the type of another one, and with its shape if `shape` is None."""
    return ir.Value(name=name, shape=value.shape if shape is None else shape, type=value.type)


def integer_constant(graph, name, content):
    """An int64 initializer."""
    return constant(graph, name, np.array(content, np.int64))


def constant(graph, name, array):
    """An initializer that holds a NumPy array."""
    return initializer(
        graph, ir.Tensor(np.ascontiguousarray(array).reshape(array.shape), name=name)
    )


def initializer(graph, tensor):
    """An initializer that holds a tensor. It has the name of the tensor."""
    value = ir.Value(
        name=tensor.name,
        shape=ir.Shape(tensor.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
