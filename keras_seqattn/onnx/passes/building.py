"""What the rewrites do to a graph: replace nodes by one, add constants."""

import numpy as np
import onnx_ir as ir


def replace_nodes(graph, old, op_type, inputs, attributes=None, domain=""):
    """Put one node with one output in the place of others.

    Args:
        graph: the `onnx_ir.Graph`.
        old: the nodes, in graph order; the new node takes the name and the output of the last.
        op_type, inputs, attributes, domain: of the new node.
    """
    name, output = old[-1].name, old[-1].outputs[0]
    value = ir.Value(name=output.name, shape=output.shape, type=output.type)
    node = ir.node(op_type, inputs, attributes, domain=domain, outputs=[value], name=name)
    graph.insert_before(old[0], node)
    ir.convenience.replace_all_uses_with(output, value, replace_graph_outputs=True)
    graph.remove(old[::-1], safe=True)


def integer_constant(graph, name, content):
    """An int64 initializer."""
    return constant(graph, name, np.array(content, np.int64))


def constant(graph, name, array):
    """An initializer that holds a NumPy array."""
    tensor = ir.Tensor(array, name=name)
    value = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
