"""What the rewrites do to a graph: insert nodes, put values in the place of others, add constants.

Every rewrite after the trace builds its nodes here.
"""

import numpy as np
import onnx_ir as ir


def insert(before, op_type, inputs, attributes=None, domain="", *, name, outputs=None):
    """Put a node before another one.

    Args:
        before: the node that it comes before, in the main graph or in a body.
        op_type, inputs, attributes, domain: of the new node.
        name: of the node.
        outputs: list of `onnx_ir.Value`; None makes one that is called like the node.

    Returns:
        The output, or a list of them if `outputs` was given.
    """
    values = [ir.Value(name=name)] if outputs is None else outputs
    node = ir.node(op_type, inputs, attributes or {}, domain=domain, outputs=values, name=name)
    before.graph.insert_before(before, node)
    return values[0] if outputs is None else values


def replace_nodes(graph, old, op_type, inputs, attributes=None, domain=""):
    """Put one node with one output in the place of others.

    Args:
        graph: the `onnx_ir.Graph`.
        old: the nodes, in graph order; the new node takes the name and the output of the last.
        op_type, inputs, attributes, domain: of the new node.
    """
    name, output = old[-1].name, old[-1].outputs[0]
    value = like(output.name, output)
    insert(old[0], op_type, inputs, attributes, domain, name=name, outputs=[value])
    ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
    graph.remove(old[::-1], safe=True)


def replace_by_value(node, value):
    """Let a value take the place and the name of a node's output, and remove the node."""
    old = node.outputs[0]
    value.shape, value.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    value.name = old.name


def like(name, value, shape=None):
    """A new value of the type of another one, and of its shape if none is given."""
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
    """An initializer that holds a tensor, by whose name it goes."""
    value = ir.Value(
        name=tensor.name,
        shape=ir.Shape(tensor.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
