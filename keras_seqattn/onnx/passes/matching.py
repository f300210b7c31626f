"""Questions of the rewrites about nodes and values."""

from keras_seqattn.ports import Port
from keras_seqattn.ports.names import guess


def port_of(value):
    """The declared `Port` of an input of a graph. If there is none, it is guessed by name."""
    return value.meta.get("port") or guess(Port(value.name))


def inputs_of_role(graph, *roles):
    """list of the inputs of a graph that have one of the roles."""
    return [value for value in graph.inputs if port_of(value).role in roles]


def is_op(node, op_type, domain=""):
    """Whether a node has that operator."""
    return node is not None and node.op_type == op_type and node.domain == domain


def is_weight(value, rank):
    """Whether a value is an initializer of that rank."""
    return value is not None and value.const_value is not None and len(value.shape) == rank


def only_use(value):
    """The only node that reads a value. None if there are several or the graph returns it."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def added_bias(value):
    """(Add node, bias) if only an Add with a 1-D weight reads a value, else (None, None).

    The weight is as long as the last axis of the value: the Add repeats neither of them.
    """
    node = only_use(value)
    if not is_op(node, "Add"):
        return None, None
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    if not is_weight(other, 1):
        return None, None
    columns = value.shape[-1] if value.shape else max(2, other.shape[0])
    return (node, other) if columns == other.shape[0] else (None, None)
