"""From a Keras model to ONNX graphs in memory: inputs and outputs declared, traced, optimised."""

import re

import keras
import onnx_ir as ir

import keras_seqattn
from keras_seqattn.errors import ExportError, SeqAttnError
from keras_seqattn.generation.steps import is_cache
from keras_seqattn.models.sequence_model import SequenceModel
from keras_seqattn.onnx.arguments import check_model
from keras_seqattn.onnx.equal_lengths import trace_with_equal_lengths
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
# The entry of a file's metadata that says which inputs have one length, and why.
EQUAL_LENGTHS = "keras_seqattn.equal_lengths"
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
    graphs = {name: _build(part, target, True, name) for name, part in parts.items()}
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
    # Our families live in the world of checkpoints, whose integers are int64.
    ours = isinstance(model, SequenceModel)
    graph = _build(model.step_model() if task == "causal_lm" else model, target, ours)
    lower_opset([graph], target.lower_opset(opset))
    return graph


def shares_caches(graph):
    """Whether attention works in place on every cache, so that past and present may be one buffer.

    Args:
        graph: an `onnx_ir.Graph` of a decoder.
    """
    readers = [{u.node.op_type for u in i.uses()} for i in graph.inputs if is_cache(i.name)]
    return bool(readers) and all(types == {"GroupQueryAttention"} for types in readers)


def _build(model, target, ours, part=None):
    """The graph of a functional model, which may be a part of an encoder-decoder of ours."""
    load_tables()
    tried = []

    def attempt(same):
        tracer = Tracer(target)
        try:
            return tracer, _trace(tracer, model, ours, part, same), None
        except Exception as error:  # the model's own code may raise anything
            tried.append(error)
            return tracer, None, error

    try:
        tracer, outputs, joined = trace_with_equal_lengths(attempt)
    except Exception as separate:
        for error in (separate, tried[-1]):
            if isinstance(error, SeqAttnError):
                raise type(error)(without_stand_ins(str(error))) from None
        text = without_stand_ins(reason(separate))
        raise ExportError(f"{model.name} cannot be traced: {text}") from separate
    try:
        graph = _finished(tracer, outputs, target, ours)
    except SeqAttnError:
        raise
    except Exception as error:  # of onnx_ir, which says in its own words what no graph may be
        raise ExportError(f"{model.name} makes no graph: {reason(error)}") from error
    if joined:
        graph.metadata_props[EQUAL_LENGTHS] = joined
    return graph


def _finished(tracer, outputs, target, ours):
    _declare_outputs(tracer, outputs, ours)
    tracer.graph.opset_imports.update(target.opset_imports)
    graph_model = ir.Model(
        tracer.graph,
        ir_version=target.ir_version,
        producer_name="keras_seqattn",
        producer_version=keras_seqattn.__version__,
    )
    optimise(graph_model, target)
    return graph_model


def _trace(tracer, model, ours, part, same):
    """The outputs by name; `same` as in `trace_with_equal_lengths`."""
    inputs = {}
    named = _named_inputs(model)
    grows = any(is_cache(name) for name, _ in named)
    # A buffer of fixed size has room for all tokens, also for those that are not there yet.
    total = "past_sequence_length" if "cache_position" in dict(named) else _TOTAL
    for name, tensor in named:
        if part is None:
            dimensions = _dimensions(name, tensor, total if grows else None)
        else:
            dimensions = _part_dimensions(name, tensor, part)
        dimensions = [_joined(d, same) for d in dimensions]
        dtype = None if ours else tensor.dtype
        inputs[name] = tracer.add_input(name, dimensions, tensor.dtype, _LABELS, dtype)
    if part == DECODER and grows:
        tracer.label(_DECODER_TOTAL, _DECODER_LABEL)
    struct = _input_struct(model)
    if isinstance(struct, dict):
        packed = inputs
    else:
        packed = keras.tree.pack_sequence_as(struct, list(inputs.values()))
    return _named_outputs(model, tracer.run(model, packed), ours)


def _joined(dimension, same):
    """The dimension, or the parts of a sum, under the name of those that they equal."""
    if isinstance(dimension, int):
        return dimension
    parts = dimension.split("+")
    for index, part in enumerate(parts):
        while part in same:
            part = same[part]
        parts[index] = part
    return "+".join(parts)


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


def _ordered(model, names, ours):
    """The names of a dict of outputs in the order of the model, of our families by their numbers.

    A functional model's result is in another order on some backends, but not what it declares.
    """
    if ours:
        return sorted(names, key=_numbers_by_value)
    try:
        declared = model.output
    except (AttributeError, ValueError):
        declared = None
    same = isinstance(declared, dict) and set(declared) == set(names)
    return list(declared) if same else names


def _named_outputs(model, outputs, ours):
    if isinstance(outputs, dict):
        return {name: outputs[name] for name in _ordered(model, list(outputs), ours)}
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


def _dimensions(name, tensor, total):
    """Names for the dynamic axes of one input, ints for the others; `total` of a cache's mask."""
    dimensions = []
    for axis, size in enumerate(tensor.shape):
        if size is not None:
            dimensions.append(size)
        elif axis == 0:
            dimensions.append("batch_size")
        elif is_cache(name):
            dimensions.append("past_sequence_length")
        elif total and name == "attention_mask":
            dimensions.append(total)
        elif name in _SHARED_LENGTH:
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


def _declare_outputs(tracer, outputs, ours):
    inputs = {i.name for i in tracer.graph.inputs}
    for name, symbol in outputs.items():
        if not isinstance(symbol, Symbol):
            raise ExportError(f"the output {name!r} does not depend on the inputs")
        tracer.add_output(output_name(name, inputs), symbol, None if ours else symbol.dtype)
