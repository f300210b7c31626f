"""The `Ports` of a session: from its graph, and from the metadata that its exporter wrote."""

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import BundleError, InputError
from keras_seqattn.json_objects import parse_object
from keras_seqattn.ports import METADATA, Port, Ports
from keras_seqattn.ports.names import guess, guess_outputs

# Types of tensors: name in onnxruntime -> name in NumPy.
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(bool)": "bool",
    "tensor(string)": "string",
} | {
    f"tensor({kind}{bits})": f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}


def graph_ports(inputs, outputs, metadata):
    """The `Ports` of a graph.

    If the metadata of the file say nothing about a name, the role is guessed from the name.

    Args:
        inputs, outputs: lists of `Port` with any role.
        metadata: dict of the metadata of the file.

    Raises:
        BundleError: the metadata are not valid.
    """
    given = tuple(map(guess, inputs))
    ports = Ports(given, guess_outputs(outputs, given))
    if METADATA not in metadata:
        return ports
    declaration = parse_object(metadata[METADATA], f"the metadata {METADATA}")
    try:
        return ports.with_declaration(declaration)
    except InputError as error:
        raise BundleError(f"the metadata {METADATA} are not valid: {error}") from None


def numpy_dtype(port):
    """The NumPy type of a `Port` of a graph.

    Raises:
        BundleError: NumPy has no such type.
    """
    if port.dtype not in _DTYPES.values():
        raise BundleError(f"{shown(port.name)} is {port.dtype}, which is not supported")
    return np.dtype(port.dtype).type


def port_of_value(value):
    """The `Port`, still without role, of an input or output of a session (onnxruntime.NodeArg).

    Raises:
        BundleError: the input or output has no name.
    """
    axes = [
        # Some axes have neither a size nor a name.
        axis if axis is not None and axis != "" else f"{value.name}_axis_{index}"
        for index, axis in enumerate(value.shape)
    ]
    try:
        return Port(value.name, axes=axes, dtype=_DTYPES.get(value.type, value.type))
    except InputError as error:
        raise BundleError(f"the graph is not valid: {error}") from None
