"""The ports of any Keras model. Our models declare them; for others, `keras.Input` is read."""

import dataclasses
import itertools

import keras

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ExportError, InputError
from keras_seqattn.models.functional import PortModel
from keras_seqattn.onnx.keras_internals import input_name
from keras_seqattn.onnx.structures import joined, leaves
from keras_seqattn.ports import Port, Ports, matching
from keras_seqattn.ports import names as port_names

# Inputs with these roles have the same length, that of the tokens.
_OF_TOKENS = ("tokens", "mask", "token_types", "positions", "global_mask")


def is_dict_of_tensors(struct):
    """Whether the keys of a structure are the names of the inputs: a dict without more inside."""
    return isinstance(struct, dict) and all(hasattr(x, "dtype") for x in struct.values())


def named_inputs(model):
    """dict of name -> symbolic input, in the order of the model."""
    struct = model.input
    if is_dict_of_tensors(struct):
        return dict(struct)
    return {input_name(tensor): tensor for tensor in keras.tree.flatten(struct)}


def named_outputs(model, outputs, ports):
    """dict of name -> output, in the order that the model declares.

    The names are those of the layers of a functional model, or the paths to the outputs in a dict:
    keys and indices, with "/" between them. A name that two outputs have gets a number.

    Args:
        model: the Keras model.
        outputs: what it returned.
        ports: its `Ports`.
    """
    if isinstance(outputs, dict):
        found = {joined(path): x for path, x in leaves(outputs) if x is not None}
        return {name: found[name] for name in _ordered(model, list(found), ports)}
    flat = keras.tree.flatten(outputs)
    names = getattr(model, "output_names", None) or []
    if len(names) != len(flat):
        names = [f"output_{i}" for i in range(len(flat))]
    return dict(zip(_numbered(names), flat, strict=True))


def _ordered(model, names, ports):
    """The names of a dict of outputs in the order that the model declares.

    On some backends, the result of a functional model has another order than it declares.
    """
    if {port.name for port in ports.outputs} == set(names):
        return [port.name for port in ports.outputs]
    try:
        declared = [joined(path) for path, _ in leaves(model.output)]
    except (AttributeError, ValueError):
        return names
    return declared if set(declared) == set(names) else names


def _numbered(names):
    """The names, where the second and each later one of equal names ends in a number."""
    made = []
    for name in names:
        others = (f"{name}_{i}" for i in itertools.count(1))
        taken = {*made, *names}
        made.append(next(n for n in others if n not in taken) if name in made else name)
    return made


def output_name(name, inputs):
    """The name of an output in the file. It must not be the name of an input."""
    return f"{name}_output" if name in inputs else name


def input_ports(model, given=()):
    """The `Ports` of a model. Only our models declare their outputs, too.

    Args:
        model: a Keras model with declared inputs.
        given: list of `Port`. Ports of inputs add to what keras.Input says. Ports of outputs are
            used in `with_outputs`.

    Raises:
        ExportError: the given ports do not fit the model.
    """
    own = model.ports if isinstance(model, PortModel) else _foreign(model)
    inputs = {port.name for port in own.inputs}
    return _matching(model, own, [port for port in _checked(given) if port.name in inputs])


def with_outputs(model, ports, outputs, given=()):
    """The ports together with the outputs of a file.

    Args:
        model: the Keras model.
        ports: `Ports` of its inputs.
        outputs: list of `onnx_ir.Value`, in order.
        given: as for `input_ports`.

    Raises:
        ExportError: a given port fits neither an input nor an output.
    """
    known = {port.name: port for port in ports.outputs}
    made = port_names.guess_outputs([_port(value) for value in outputs], ports.inputs)
    made = tuple(known.get(port.name, port) for port in made)
    return _matching(model, dataclasses.replace(ports, outputs=made), given)


def _checked(given):
    if not isinstance(given, (list, tuple)) or not all(isinstance(port, Port) for port in given):
        raise ExportError(f"ports must be a list of keras_seqattn.ports.Port, not {shown(given)}")
    return given


def _matching(model, own, given):
    try:
        return matching(own, given) if given else own
    except InputError as error:
        raise ExportError(f"{model.name}: {error}") from error


def _port(value):
    axes = [n if isinstance(n, int) else str(n) for n in value.shape or ()]
    return Port(value.name, axes=axes, dtype=value.dtype.numpy().name)


def _foreign(model):
    tensors = named_inputs(model)
    # The declared type may be bfloat16. A target without bfloat16 uses float32 for it.
    guessed = [port_names.guess(Port(name, dtype=x.dtype)) for name, x in tensors.items()]
    grows = any(port.role == "cache" for port in guessed)
    # A buffer of fixed size also has places for tokens that do not exist yet.
    is_static = any(port.role == "slot" for port in guessed)
    of_mask = port_names.PAST if is_static else port_names.TOTAL if grows else port_names.TOKENS
    ports = [
        dataclasses.replace(port, axes=_axes(port, tensors[port.name].shape, of_mask))
        for port in guessed
    ]
    totals = port_names.TOTALS if of_mask == port_names.TOTAL else {}
    return Ports(tuple(ports), (), totals=totals)


def _axes(port, shape, of_mask):
    """Names for the dynamic axes, and sizes for the others."""
    first = f"{port.name}_length"
    if port.role in _OF_TOKENS:
        first = of_mask if port.role == "mask" else port_names.TOKENS
    axes = []
    for axis, size in enumerate(shape):
        if size is not None:
            axes.append(size)
        elif axis == 0:
            axes.append(port_names.BATCH)
        elif port.role in ("cache", "source_cache"):
            axes.append(port_names.PAST)
        elif axis == 1:
            axes.append(first)
        else:
            axes.append(f"{'' if port.role in _OF_TOKENS else port.name + '_'}length_{axis}")
    return tuple(axes)
