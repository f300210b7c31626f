"""Loops over an axis as ONNX Scan. The body is traced once and may read outer values."""

import keras
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.elementwise import cast
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.sizes import is_dynamic


def scan(tracer, step, states, xs, *, axis=0, reverse_inputs=False, reverse_outputs=False):
    """Emit a Scan of `step`, which is called once.

    Args:
        tracer: the Tracer.
        step: function(states, slices) -> (new states, outputs), all lists of Symbols.
        states: Symbols, the states for the first step.
        xs: Symbols, at least one. The steps get their slices along `axis`.
        axis: axis of xs and of the stacked outputs.
        reverse_inputs: begin with the last slices.
        reverse_outputs: put the outputs of the first step last.

    Returns:
        (last states, stacked outputs), lists of Symbols.
    """
    settings = {"reverse_inputs": reverse_inputs, "reverse_outputs": reverse_outputs}
    if _may_be_empty(xs[0].sizes[axis]):
        return _unless_empty(tracer, step, states, xs, axis, settings)
    return _scan(tracer, step, states, xs, axis, **settings)


def _may_be_empty(length):
    """Whether a length that is computed from those of the inputs is 0 for some of them."""
    return is_dynamic(length) and bool((length.samples <= 0).any())


def _unless_empty(tracer, step, states, xs, axis, settings):
    """A Scan inside an If, because onnxruntime stops at a Scan over nothing."""
    with tracer.body("then") as then:
        lasts, stacked = _scan(tracer, step, states, xs, axis, **settings)
        made = [*lasts, *stacked]
        then.outputs.extend(body_result(tracer, then, x) for x in made)
    with tracer.body("else") as otherwise:
        shapes = [(*y.sizes[:axis], 0, *y.sizes[axis + 1 :]) for y in stacked]
        nothing = [
            tracer.filled(shape, 0, y.dtype) for shape, y in zip(shapes, stacked, strict=True)
        ]
        otherwise.outputs.extend(body_result(tracer, otherwise, x) for x in (*states, *nothing))
    any_steps = ops.greater(tracer.size(xs[0], axis), 0)
    attributes = {"then_branch": then, "else_branch": otherwise}
    specs = [(x.sizes, x.dtype) for x in made]
    results = tracer.emit("If", [any_steps], attributes, outputs=specs)
    return results[: len(states)], results[len(states) :]


def _scan(tracer, step, states, xs, axis, reverse_inputs, reverse_outputs):
    length = xs[0].sizes[axis]
    with tracer.body("body") as body:
        carried = [tracer.body_input(body, "state", s.sizes, s.dtype) for s in states]
        slices = [
            tracer.body_input(body, "slice", x.sizes[:axis] + x.sizes[axis + 1 :], x.dtype)
            for x in xs
        ]
        new, outputs = step(carried, slices)
        new = [same_state(tracer, n, s) for n, s in zip(new, states, strict=True)]
        for symbol in (*new, *outputs):
            body.outputs.append(body_result(tracer, body, symbol))
    stacked = [((*y.sizes[:axis], length, *y.sizes[axis:]), y.dtype) for y in outputs]
    attributes = {
        "body": body,
        "num_scan_inputs": len(xs),
        "scan_input_axes": [axis] * len(xs),
        "scan_input_directions": [int(reverse_inputs)] * len(xs),
        "scan_output_axes": [axis] * len(outputs) or None,
        "scan_output_directions": [int(reverse_outputs)] * len(outputs) or None,
    }
    specs = [*((s.sizes, s.dtype) for s in states), *stacked]
    results = tracer.emit("Scan", [*states, *xs], attributes, outputs=specs)
    return results[: len(states)], results[len(states) :]


def body_result(tracer, body, symbol):
    """The value of a symbol as a result of a body. A node in the body makes it; it is used once."""
    producer = symbol.value.producer()
    if producer is None or producer.graph is not body or symbol.value.is_graph_output():
        symbol = tracer.emit("Identity", [symbol], sizes=symbol.sizes, dtype=symbol.dtype)
    return symbol.value


def same_state(tracer, new, state):
    """A new state in the dtype of the old one. It must have the same shape."""
    if new.sizes != state.sizes:
        raise ExportError(
            f"{tracer.where()}: a step of a loop makes a state of shape {new.shape} out of one "
            f"of shape {state.shape}; start with a state of its final shape"
        )
    return cast(tracer, new, state.dtype)


@lowers("Scan")
def scan_operation(tracer, operation, f, init, xs=None):
    """`keras.ops.scan`. `init`, `xs` and the results of `f` may be nested."""
    tree = keras.tree
    states = [tracer.tensor(x) for x in tree.flatten(init)]
    if xs is None:
        slices = [tracer.filled([operation.length], 0, "int32")]
    else:
        slices = [tracer.tensor(x) for x in tree.flatten(xs)]
    made = None

    def step(states, slices):
        nonlocal made
        x = None if xs is None else tree.pack_sequence_as(xs, slices)
        carry, made = f(tree.pack_sequence_as(init, states), x)
        outputs = [tracer.tensor(y) for y in tree.flatten(made) if y is not None]
        return [tracer.tensor(c) for c in tree.flatten(carry)], outputs

    reverse = {name: operation.reverse for name in ("reverse_inputs", "reverse_outputs")}
    states, outputs = scan(tracer, step, states, slices, **reverse)
    outputs = iter(outputs)
    made = tree.map_structure(lambda y: None if y is None else next(outputs), made)
    return tree.pack_sequence_as(init, states), made
