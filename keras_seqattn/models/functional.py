"""What every skeleton does with functional models: declared inputs, layers found again by name."""

import keras

from keras_seqattn.ports import Port, Ports
from keras_seqattn.ports.names import guess, guess_outputs, in_order


class PortModel(keras.Model):
    """A functional model, dict in and dict out, that declares its inputs and outputs.

    Args:
        inputs: dict of name -> symbolic input, which `symbolic` made of a `Port`. Of another the
            port is guessed from its name.
        outputs: dict of name -> symbolic output.
        limits, totals: as in `Ports`.
        **kwargs: of `keras.Model`.

    Attributes:
        ports: `Ports`. Integers are int64 there, as in checkpoints and files, and int32 in Keras.
    """

    def __init__(self, inputs, outputs, limits=None, totals=None, **kwargs):
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)
        ports = tuple(port_of(name, tensor) for name, tensor in inputs.items())
        # What becomes a past has its type, also where Keras, which casts what layers are called
        # with, expects another one.
        types = {port.follows: port.dtype for port in ports}
        # Backends order dicts differently.
        given = [
            Port(name, axes=_axes(x), dtype=types.get(name, file_dtype(x.dtype)))
            for name, x in ((name, outputs[name]) for name in in_order(outputs))
        ]
        self.ports = Ports(ports, guess_outputs(given, ports), limits or {}, totals or {})


def symbolic(*ports):
    """Symbolic inputs by name, a `Port` each, that remember it."""
    inputs = {}
    for port in ports:
        batch, *sizes = (size if isinstance(size, int) else None for size in port.axes)
        dtype, shape = keras_dtype(port.dtype), (batch, *sizes)
        inputs[port.name] = keras.Input(batch_shape=shape, dtype=dtype, name=port.name)
        inputs[port.name].port = port
    return inputs


def port_of(name, tensor):
    """The `Port` that a symbolic input was made of, or else one guessed from its name."""
    known = getattr(tensor, "port", None)
    return known or guess(Port(name, axes=_axes(tensor), dtype=file_dtype(tensor.dtype)))


def file_dtype(dtype):
    """The type in a file of what Keras holds as `dtype`, for models of the checkpoint world."""
    return "int64" if "int" in dtype else dtype


def keras_dtype(dtype):
    """The type in Keras of what a file of the checkpoint world holds as `dtype`."""
    return "int32" if dtype == "int64" else dtype


def named_layers(model):
    """The layers of a functional model, by name."""
    return {layer.name: layer for layer in model.layers}


def numbered_layers(layers, prefix):
    """Those named `{prefix}0`, `{prefix}1` and so on among named layers, in order."""
    count = sum(name.startswith(prefix) for name in layers)
    return [layers[f"{prefix}{index}"] for index in range(count)]


def apply_layers(layers, names, x):
    """`x` through those of the named layers that a model has, one after the other.

    Args:
        layers: dict of the layers by name.
        names: of the layers.
        x: a tensor.
    """
    for name in names:
        x = layers[name](x) if name in layers else x
    return x


def _axes(tensor):
    return tuple(f"axis_{axis}" if size is None else size for axis, size in enumerate(tensor.shape))
