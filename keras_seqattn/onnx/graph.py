"""Makes ONNX graphs in memory of a Keras model: ports are declared, it is traced and optimised."""

import dataclasses
import json

import keras
import onnx_ir as ir

import keras_seqattn
from keras_seqattn.errors import ExportError, SeqAttnError
from keras_seqattn.models.functional import PortModel
from keras_seqattn.onnx.arguments import check_model
from keras_seqattn.onnx.bounds import LENGTH
from keras_seqattn.onnx.called_model import CalledModel, with_inputs
from keras_seqattn.onnx.declared import (
    input_ports,
    is_dict_of_tensors,
    named_inputs,
    named_outputs,
    output_name,
    with_outputs,
)
from keras_seqattn.onnx.equal_lengths import trace_with_equal_lengths
from keras_seqattn.onnx.index_limits import with_index_limits
from keras_seqattn.onnx.lower import load_tables
from keras_seqattn.onnx.lower.random import RANDOM
from keras_seqattn.onnx.opset import check_opset, lower_opset
from keras_seqattn.onnx.optimise import optimise
from keras_seqattn.onnx.passes.matching import inputs_of_role
from keras_seqattn.onnx.refusals import reason, untraceable, without_stand_ins
from keras_seqattn.onnx.targets import get_target
from keras_seqattn.onnx.trace import Tracer
from keras_seqattn.ports import METADATA
from keras_seqattn.tasks import MODEL, task_of_model

# The roles of inputs that count tokens.
_POSITIONS = frozenset({"length", "positions", "slot"})
# The key in the metadata of a file that says which inputs have one length, and why.
EQUAL_LENGTHS = "keras_seqattn.equal_lengths"


def build_graphs(model, target="ort", opset=None, ports=(), input_signature=None):
    """Trace a model into the graphs of its bundle, in float precision.

    Args:
        model: as for `build_graph`, or an encoder-decoder.
        target: name of the target.
        opset: None, or a lower version of the standard operators than the target's.
        ports, input_signature: as for `export`.

    Returns:
        dict of file name without suffix -> `onnx_ir.Model`: "model", or "encoder_model" and
        "decoder_model_merged".

    Raises:
        ExportError: as for `build_graph`.
    """
    check_model(model)
    check_opset(opset)
    model = with_inputs(model, input_signature)
    target = get_target(target)
    graphs = {name: _build(part, target, ports) for name, part in _parts(model, ports).items()}
    lower_opset(graphs.values(), target.lower_opset(opset))
    return graphs


def build_graph(model, target="ort", opset=None, ports=(), input_signature=None):
    """Trace a model into an `onnx_ir.Model` in float precision.

    Args:
        model: as for `export`, but no encoder-decoder. For a SequenceModel that decodes, its step
            model is traced, with past and present.
        target: name of the target.
        opset: None, or a lower version of the standard operators than the target's.
        ports, input_signature: as for `export`.

    Raises:
        ExportError: an operation has no ONNX form or needs a higher opset; or the model has no
            known inputs, or is an encoder-decoder, which has two graphs.
    """
    check_model(model)
    if len(task_of_model(model).graphs) > 1:
        raise ExportError(f"{model.name} has an encoder and a decoder graph: use build_graphs")
    return build_graphs(model, target, opset, ports, input_signature)[MODEL]


def shares_caches(graph):
    """Whether attention works in place on every cache. Then past and present may be one buffer.

    Args:
        graph: an `onnx_ir.Graph` of a decoder.
    """
    caches = inputs_of_role(graph, "cache", "source_cache")
    readers = [{use.node.op_type for use in value.uses()} for value in caches]
    return bool(readers) and all(types == {"GroupQueryAttention"} for types in readers)


def _parts(model, ports):
    """The functional model of each file, by the name of the file."""
    if not hasattr(model, "parts"):
        return {MODEL: model}
    if ports:
        raise ExportError(f"{model.name} declares its own ports: ports= is for models that do not")
    return model.parts()


def _build(model, target, given):
    """The graph of a functional model. The model may be a part of one of our models."""
    load_tables()
    ports, tried = input_ports(model, given), []

    def attempt(same):
        tracer = Tracer(target)
        try:
            return tracer, _trace(tracer, model, ports, same), None
        except Exception as error:  # the model's own code may raise any error
            tried.append(error)
            return tracer, None, error

    try:
        tracer, outputs, joined = trace_with_equal_lengths(attempt)
    except Exception as separate:
        for error in (separate, tried[-1]):
            if isinstance(error, SeqAttnError):
                raise type(error)(without_stand_ins(str(error))) from None
        text = without_stand_ins(untraceable(separate))
        raise ExportError(f"{model.name} cannot be traced: {text}") from separate
    if isinstance(model, CalledModel) and model.is_guessed:
        integers = _only_cast(tracer.graph)
        model.use_integers(integers)
        if integers:
            return _build(model, target, given)
    try:
        _declare_outputs(tracer, outputs, ports)
        ports = _with_states(tracer, ports)
        ports = with_outputs(model, ports, tracer.graph.outputs, given)
        if not isinstance(model, PortModel):
            ports = with_index_limits(ports, tracer.graph)
        graph = _finished(tracer, target, ports)
    except SeqAttnError:
        raise
    except Exception as error:  # onnx_ir has its own messages for graphs that are not valid
        raise ExportError(f"{model.name} makes no graph: {reason(error)}") from error
    if joined:
        graph.metadata_props[EQUAL_LENGTHS] = joined
    if tracer.draws:
        graph.metadata_props[RANDOM] = tracer.graph.metadata_props.pop(RANDOM)
    return graph


def _only_cast(graph):
    """The names of the float inputs of which a model uses only the whole numbers."""

    def is_cast(node):
        return node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.INT64

    users = {value.name: [node for node, _ in value.uses()] for value in graph.inputs}
    return [name for name, nodes in users.items() if nodes and all(map(is_cast, nodes))]


def _finished(tracer, target, ports):
    tracer.graph.opset_imports.update(target.opset_imports)
    graph_model = ir.Model(
        tracer.graph,
        ir_version=target.ir_version,
        producer_name="keras_seqattn",
        producer_version=keras_seqattn.__version__,
    )
    declaration = json.dumps(ports.declaration(), separators=(",", ":"))
    graph_model.metadata_props[METADATA] = declaration
    optimise(graph_model, target)
    return graph_model


def _trace(tracer, model, ports, same):
    """The outputs by name. For `same`, see `trace_with_equal_lengths`."""
    inputs = {}
    tensors = named_inputs(model)
    sums = {name: "+".join(_joined(part, same) for part in of) for name, of in ports.totals.items()}
    for port in ports.inputs:
        axes = [sums.get(axis, _joined(axis, same)) for axis in port.axes]
        labels = {sums[axis]: axis for axis in port.axes if axis in sums}
        tensor = tensors[port.name]
        inputs[port.name] = tracer.add_input(
            port.name, axes, tensor.dtype, labels, port.dtype, _limits(port)
        )
        tracer.graph.inputs[-1].meta["port"] = port
    for name, of in sums.items():
        tracer.label(of, name)
    struct = model.input
    if is_dict_of_tensors(struct):
        packed = inputs
    else:
        packed = keras.tree.pack_sequence_as(struct, list(inputs.values()))
    return named_outputs(model, tracer.run(model, packed), ports)


def _limits(port):
    """The least and the greatest valid integer of a port, or None for each."""
    if port.role in _POSITIONS:
        return 0, LENGTH
    return port.least, None if port.below is None else port.below - 1


def _joined(dimension, same):
    """The name of the dimension to which a dimension is equal."""
    while dimension in same:
        dimension = same[dimension]
    return dimension


def _with_states(tracer, ports):
    """The ports with the inputs of states. The outputs that follow them are declared."""
    for name, symbol in tracer.states.outputs().items():
        tracer.add_output(name, symbol)
    return dataclasses.replace(ports, inputs=(*ports.inputs, *tracer.states.ports))


def _declare_outputs(tracer, outputs, ports):
    inputs = {port.name for port in ports.inputs}
    known = {port.name: port.dtype for port in ports.outputs}
    is_wide = any(port.dtype == "int64" for port in ports.inputs)
    for name, symbol in outputs.items():
        symbol = tracer.symbol(symbol)
        # Some backends expect int32 of what they compute from int64, and then compute in int64.
        dtype = "int64" if is_wide and symbol.dtype == "int32" else symbol.dtype
        tracer.add_output(output_name(name, inputs), symbol, known.get(name, dtype))
