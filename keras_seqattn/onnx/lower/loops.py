"""Loops as ONNX Loop, and functions of each element as ONNX Scan. A body is traced once."""

import keras
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.scan import body_result, same_state, scan

tree = keras.tree


@lowers("WhileLoop")
def while_loop(tracer, operation, loop_vars):
    """`keras.ops.while_loop`. The states must keep their shapes."""
    is_several = isinstance(loop_vars, (tuple, list))
    start = tuple(loop_vars) if is_several else (loop_vars,)
    states = [tracer.tensor(x) for x in tree.flatten(start)]

    def goes_on(states):
        return _truth(tracer, operation.cond(*tree.pack_sequence_as(start, states)))

    def step(_, states):
        made = operation.body(*tree.pack_sequence_as(start, states))
        # The one state of a loop may be given in a tuple and made without one.
        made = tuple(made) if isinstance(made, (tuple, list)) else (made,)
        new = _flat_like(tracer, start, made)
        return new, goes_on(new)

    count = operation.maximum_iterations
    results = _loop(tracer, count, goes_on(states), states, step)
    packed = tree.pack_sequence_as(start, results)
    return packed if is_several else packed[0]


@lowers("ForiLoop")
def fori_loop(tracer, operation, init_val):
    """`keras.ops.fori_loop`. Its bounds may be tensors."""
    lower, upper = operation.lower, operation.upper
    states = [tracer.tensor(x) for x in tree.flatten(init_val)]

    def step(number, states):
        made = operation.body_fun(number + lower, tree.pack_sequence_as(init_val, states))
        return _flat_like(tracer, init_val, made), None

    count = ops.maximum(tracer.tensor(upper) - tracer.tensor(lower), 0)
    return tree.pack_sequence_as(init_val, _loop(tracer, count, None, states, step))


def _loop(tracer, count, first, states, step):
    """Emit a Loop of `step`, which is called once.

    Args:
        tracer: the Tracer.
        count: the most iterations, int or scalar Symbol, or None.
        first: bool Symbol, whether there is a first iteration, or None: there is.
        states: Symbols.
        step: function(number of the iteration, states) -> (new states, bool Symbol or None: whether
            there is another iteration).

    Returns:
        The last states, a list of Symbols.
    """
    with tracer.body("loop") as body:
        number = tracer.body_input(body, "iteration", (), "int32")
        condition = tracer.body_input(body, "condition", (), "bool")
        carried = [tracer.body_input(body, "state", s.sizes, s.dtype) for s in states]
        new, goes_on = step(number, carried)
        new = [same_state(tracer, n, s) for n, s in zip(new, states, strict=True)]
        for symbol in (condition if goes_on is None else goes_on, *new):
            body.outputs.append(body_result(tracer, body, symbol))
    count = None if count is None else ops.reshape(tracer.tensor(count), ())
    specs = [(s.sizes, s.dtype) for s in states]
    return tracer.emit("Loop", [count, first, *states], {"body": body}, outputs=specs)


def _truth(tracer, condition):
    """A condition as a bool scalar."""
    condition = ops.cast(tracer.tensor(condition), "bool")
    return ops.reshape(condition, ()) if condition.sizes else condition


def _flat_like(tracer, start, made):
    """The new states as a list. They must be as many as the old ones."""
    new = [tracer.tensor(x) for x in tree.flatten(made)]
    if len(new) != len(tree.flatten(start)):
        raise ExportError(
            f"{tracer.where()}: the body of a loop returns {len(new)} tensors for "
            f"{len(tree.flatten(start))} loop variables; return as many as it takes"
        )
    return new


@lowers("Map", "VectorizedMap")
def map_operation(tracer, operation, *args):
    """A function of each element along the first axis, as a Scan without states."""
    function, xs = args if len(args) == 2 else (operation.function, *args)
    made = None

    def step(_, slices):
        nonlocal made
        made = function(tree.pack_sequence_as(xs, slices))
        return [], [tracer.tensor(y) for y in tree.flatten(made)]

    _, outputs = scan(tracer, step, [], [tracer.tensor(x) for x in tree.flatten(xs)])
    return tree.pack_sequence_as(made, outputs)


@lowers("AssociativeScan")
def associative_scan(tracer, operation, f, elems):
    """The function of neighbours, one after the other. The order of roundings differs from Keras.

    In Keras the function gets several elements along the axis; here it gets one.
    """
    xs = [tracer.tensor(x) for x in tree.flatten(elems)]
    axis = operation.axis % len(xs[0].sizes)

    def packed(parts):
        return tree.pack_sequence_as(elems, [ops.expand_dims(x, axis) for x in parts])

    def step(states, slices):
        is_later, *states = states
        made = _flat_like(tracer, elems, f(packed(states), packed(slices)))
        # The first element stays as it is. A Scan of the others could be empty, which onnxruntime
        # does not support.
        new = [
            ops.where(is_later, ops.squeeze(y, axis), x) for y, x in zip(made, slices, strict=True)
        ]
        return [tracer.constant(True), *new], new

    # Along another axis than the first, an empty Scan would end the process.
    front = [ops.moveaxis(x, axis, 0) for x in xs]
    starts = [tracer.constant(False), *(ops.zeros_like(ops.sum(x, axis=0)) for x in front)]
    reverse = {name: operation.reverse for name in ("reverse_inputs", "reverse_outputs")}
    _, scanned = scan(tracer, step, starts, front, **reverse)
    return tree.pack_sequence_as(elems, [ops.moveaxis(y, 0, axis) for y in scanned])
