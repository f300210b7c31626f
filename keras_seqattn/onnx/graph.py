"""From a Keras model to ONNX graphs in memory: inputs and outputs declared, traced, optimised."""

import re

import keras
import onnx_ir as ir

import keras_seqattn
from keras_seqattn.errors import ExportError, SeqAttnError
from keras_seqattn.generation.steps import is_cache
from keras_seqattn.onnx.arguments import check_model
from keras_seqattn.onnx.lower import load_tables
from keras_seqattn.onnx.opset import check_opset, lower_opset
from keras_seqattn.onnx.optimise import optimise
from keras_seqattn.onnx.refusals import reason, without_stand_ins
from keras_seqattn.onnx.symbol import Symbol
from keras_seqattn.onnx.targets import get_target
from keras_seqattn.onnx.trace import Tracer

# The dimension that a decoder's mask covers, and its name in the file.
_TOTAL = "past_sequence_length+sequence_length"
_LABELS = {_TOTAL: "total_sequence_length"}
# The same of an encoder-decoder's decoder, which takes no such mask.
_DECODER_TOTAL = "past_decoder_sequence_length+decoder_sequence_length"
_DECODER_LABEL = "total_decoder_sequence_length"
_SHARED_LENGTH = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_SHARED_LENGTH += ("global_attention_mask",)
# The files of an encoder-decoder, which other runtimes know by these names.
ENCODER, DECODER = "encoder_model", "decoder_model_merged"


def build_graphs(model, target="ort", opset=None):
    """Trace a model into the graphs that its bundle has, in float precision.

    Args:
        model: as for `build_graph`, or an encoder-decoder.
        target: target name.
        opset: a lower version of the standard operators than the target's, or None.

    Returns:
        dict of file name without suffix -> `onnx_ir.Model`: "model", or "encoder_model" and
        "decoder_model_merged".

    Raises:
        ExportError: as for `build_graph`.
    """
    check_model(model)
    if getattr(model, "task", None) != "seq2seq_lm":
        return {"model": build_graph(model, target, opset)}
    check_opset(opset)
    target = get_target(target)
    parts = {ENCODER: model.encoder_model(), DECODER: model.step_model()}
    graphs = {name: _build(part, target, name) for name, part in parts.items()}
    lower_opset(graphs.values(), target.lower_opset(opset))
    return graphs


def build_graph(model, target="ort", opset=None):
    """Trace a model into an `onnx_ir.Model` in float precision.

    Args:
        model: a Keras model with fixed inputs (functional, or any that has been built on
            keras.Input). A SequenceModel that decodes is traced through its step model, with past
            and present.
        target: target name.
        opset: a lower version of the standard operators than the target's, or None.

    Raises:
        ExportError: if an operation has no ONNX form or needs a higher opset, or the model has no
            known inputs, or is an encoder-decoder, which has two graphs.
    """
    check_model(model)
    task = getattr(model, "task", None)
    if task == "seq2seq_lm":
        raise ExportError(f"{model.name} has an encoder and a decoder graph: use build_graphs")
    check_opset(opset)
    target = get_target(target)
    graph = _build(model.step_model() if task == "causal_lm" else model, target)
    lower_opset([graph], target.lower_opset(opset))
    return graph


def shares_caches(graph):
    """Whether attention works in place on every cache, so that past and present may be one buffer.

    Args:
        graph: an `onnx_ir.Graph` of a decoder.
    """
    readers = [{u.node.op_type for u in i.uses()} for i in graph.inputs if is_cache(i.name)]
    return bool(readers) and all(types == {"GroupQueryAttention"} for types in readers)


def _build(model, target, part=None):
    """The graph of a functional model, which may be a part of an encoder-decoder."""
    load_tables()
    try:
        tracer, outputs = _trace(model, target, part, shared=False)
    except Exception as separate:  # the model's own code may raise anything
        # Two inputs may have to have one length in common; Keras's shapes cannot say so.
        try:
            tracer, outputs = _trace(model, target, part, shared=True)
        except Exception as together:
            for error in (separate, together):
                if isinstance(error, SeqAttnError):
                    raise type(error)(without_stand_ins(str(error))) from None
            text = without_stand_ins(reason(separate))
            raise ExportError(f"{model.name} cannot be traced: {text}") from separate
    try:
        return _finished(tracer, outputs, target)
    except SeqAttnError:
        raise
    except Exception as error:  # of onnx_ir, which says in its own words what no graph may be
        raise ExportError(f"{model.name} makes no graph: {reason(error)}") from error


def _finished(tracer, outputs, target):
    _declare_outputs(tracer, outputs)
    tracer.graph.opset_imports.update(target.opset_imports)
    graph_model = ir.Model(
        tracer.graph,
        ir_version=target.ir_version,
        producer_name="keras_seqattn",
        producer_version=keras_seqattn.__version__,
    )
    optimise(graph_model, target)
    return graph_model


def _trace(model, target, part, shared):
    tracer = Tracer(target)
    inputs = {}
    named = _named_inputs(model)
    grows = any(is_cache(name) for name, _ in named)
    for name, tensor in named:
        if part is None:
            dimensions = _dimensions(name, tensor, grows, shared)
        else:
            dimensions = _part_dimensions(name, tensor, part)
        inputs[name] = tracer.add_input(name, dimensions, tensor.dtype, _LABELS)
    if part == DECODER and grows:
        tracer.label(_DECODER_TOTAL, _DECODER_LABEL)
    struct = _input_struct(model)
    if isinstance(struct, dict):
        packed = inputs
    else:
        packed = keras.tree.pack_sequence_as(struct, list(inputs.values()))
    return tracer, _named_outputs(model, tracer.run(model, packed))


def _input_struct(model):
    try:
        return model.input
    except (AttributeError, ValueError) as error:
        raise ExportError(
            f"{model.name} has no declared inputs; build it as a functional model on keras.Input"
        ) from error


def _named_inputs(model):
    struct = _input_struct(model)
    if isinstance(struct, dict):
        return list(struct.items())
    return [(tensor.name, tensor) for tensor in keras.tree.flatten(struct)]


def _named_outputs(model, outputs):
    if isinstance(outputs, dict):
        # Backends order dicts differently: present.10 before or after present.2.
        return dict(sorted(outputs.items(), key=lambda item: _numbers_by_value(item[0])))
    flat = keras.tree.flatten(outputs)
    names = getattr(model, "output_names", None) or []
    if len(names) != len(flat) or len(set(names)) != len(names):
        names = [f"output_{i}" for i in range(len(flat))]
    return dict(zip(names, flat, strict=True))


def output_name(name, inputs):
    """The name in the file of an output, which may not be that of an input."""
    return f"{name}_output" if name in inputs else name


def _numbers_by_value(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _dimensions(name, tensor, grows, shared):
    """Names for the dynamic axes of one input, ints for the others."""
    dimensions = []
    for axis, size in enumerate(tensor.shape):
        if size is not None:
            dimensions.append(size)
        elif axis == 0:
            dimensions.append("batch_size")
        elif is_cache(name):
            dimensions.append("past_sequence_length")
        elif grows and name == "attention_mask":
            dimensions.append(_TOTAL)
        elif shared or name in _SHARED_LENGTH:
            dimensions.append("sequence_length" if axis == 1 else f"length_{axis}")
        else:
            dimensions.append(f"{name}_length" if axis == 1 else f"{name}_length_{axis}")
    return dimensions


def _part_dimensions(name, tensor, part):
    """The same for an input of an encoder-decoder's encoder or decoder."""
    past = re.fullmatch(r"past_key_values\.\d+\.(encoder|decoder)\.(key|value)", name)
    if past:
        length = f"past_{past[1]}_sequence_length"
    elif part == ENCODER or name.startswith("encoder_"):
        length = "encoder_sequence_length"
    else:
        length = "decoder_sequence_length"
    names = ["batch_size", *[length] * (len(tensor.shape) - 1)]
    return [n if size is None else size for n, size in zip(names, tensor.shape, strict=True)]


def _declare_outputs(tracer, outputs):
    inputs = {i.name for i in tracer.graph.inputs}
    for name, symbol in outputs.items():
        if not isinstance(symbol, Symbol):
            raise ExportError(f"the output {name!r} does not depend on the inputs")
        value = symbol.value
        if value.producer() is None or value.is_graph_output():
            value = tracer.emit("Identity", [symbol], sizes=symbol.sizes, dtype=symbol.dtype).value
        value.name = output_name(name, inputs)
        tracer.graph.outputs.append(value)
