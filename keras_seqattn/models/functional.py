"""Functional models with declared inputs and outputs, and functions to find layers by name."""

import keras

from keras_seqattn.ports import Port, Ports
from keras_seqattn.ports.names import guess, guess_outputs, in_order


class PortModel(keras.Model):
    """A functional model with dicts of inputs and outputs, which it declares as ports.

    Args:
        inputs: dict of name -> symbolic input. If `symbolic` made the input, its `Port` is known.
            For another input, the port is guessed from the name.
        outputs: dict of name -> symbolic output.
        limits, totals: as in `Ports`.
        **kwargs: arguments of `keras.Model`.

    Attributes:
        ports: `Ports`. Integers are int64 there, as in checkpoints and files; in Keras, int32.
    """

    def __init__(self, inputs, outputs, limits=None, totals=None, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        ports = tuple(port_of(name, tensor) for name, tensor in inputs.items())
        # An output that becomes a past has the type of the past. Keras may expect another type for
        # it, because Keras casts the arguments of layers.
        types = {port.follows: port.dtype for port in ports}
        # The order of dicts differs between backends.
        given = [
            Port(name, axes=_axes(x), dtype=types.get(name, file_dtype(x.dtype)))
            for name, x in ((name, outputs[name]) for name in in_order(outputs))
        ]
        self.ports = Ports(ports, guess_outputs(given, ports), limits or {}, totals or {})


def symbolic(*ports):
    """dict of name -> symbolic input for some `Port`s. Each input keeps its port."""
    inputs = {}
    for port in ports:
        batch, *sizes = (size if isinstance(size, int) else None for size in port.axes)
        dtype, shape = keras_dtype(port.dtype), (batch, *sizes)
        inputs[port.name] = keras.Input(batch_shape=shape, dtype=dtype, name=port.name)
        inputs[port.name].port = port
    return inputs


def port_of(name, tensor):
    """The `Port` of a symbolic input. If it has none, a port is guessed from the name."""
    known = getattr(tensor, "port", None)
    return known or guess(Port(name, axes=_axes(tensor), dtype=file_dtype(tensor.dtype)))


def file_dtype(dtype):
    """The type in a file for the type `dtype` in Keras, in models for checkpoints."""
    return "int64" if "int" in dtype else dtype


def keras_dtype(dtype):
    """The type in Keras for the type `dtype` in a file, in models for checkpoints."""
    return "int32" if dtype == "int64" else dtype


def named_layers(model):
    """The layers of a functional model, by name."""
    return {layer.name: layer for layer in model.layers}


def numbered_layers(layers, prefix):
    """The layers `{prefix}0`, `{prefix}1` and so on, in order."""
    count = sum(name.startswith(prefix) for name in layers)
    return [layers[f"{prefix}{index}"] for index in range(count)]


def apply_layers(layers, names, x):
    """Call named layers on `x`, one after the other. Names that the model lacks are left out.

    Args:
        layers: dict of the layers by name.
        names: names of layers, in order.
        x: a tensor.
    """
    for name in names:
        x = layers[name](x) if name in layers else x
    return x


def _axes(tensor):
    return tuple(f"axis_{axis}" if size is None else size for axis, size in enumerate(tensor.shape))
