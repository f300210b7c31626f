"""A choice between computations as ONNX If."""

import keras
from keras import ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.scan import body_result
from keras_seqattn.onnx.sizes import is_dynamic, unknown


@lowers("Cond")
def cond(tracer, operation, pred, true_fn, false_fn):
    """`keras.ops.cond`. Both functions may read outer values.

    Results of both must have the same dtypes and ranks. If they have different lengths that are
    known only at run time, the length of the result is known only there, too.
    """
    return _chosen(tracer, pred, true_fn, false_fn)


@lowers("Switch")
def switch(tracer, operation, index, branches, *operands):
    """`keras.ops.switch`: the first branch for an index below 0, the last for one beyond."""
    first, *others = branches

    def apply_first():
        return first(*operands)

    def apply_others():
        return switch(tracer, operation, index - 1, others, *operands)

    if not others:
        return apply_first()
    return _chosen(tracer, ops.less_equal(index, 0), apply_first, apply_others)


def _chosen(tracer, pred, true_fn, false_fn):
    made, branches = [], []
    for name, function in (("then", true_fn), ("else", false_fn)):
        with tracer.body(name) as body:
            made.append(keras.tree.map_structure(_result(tracer), function()))
            for symbol in keras.tree.flatten(made[-1]):
                if symbol is not None:
                    body.outputs.append(body_result(tracer, body, symbol))
        branches.append(body)
    specs = [[(x.sizes, x.dtype) for x in _tensors(branch)] for branch in made]
    joined = _joined(specs)
    if joined is None:
        raise ExportError(
            f"{tracer.where()}: the functions of {_name(tracer)} return different shapes or "
            f"dtypes: {specs[0]} and {specs[1]}"
        )
    pred = tracer.symbol(pred)
    pred = ops.cast(ops.reshape(pred, ()) if pred.sizes else pred, "bool")
    attributes = dict(zip(("then_branch", "else_branch"), branches, strict=True))
    results = iter(tracer.emit("If", [pred], attributes, outputs=joined))
    return keras.tree.map_structure(lambda x: None if x is None else next(results), made[0])


def _name(tracer):
    return f"ops.{tracer._operations[-1].lower()}"


def _result(tracer):
    return lambda x: None if x is None else tracer.tensor(x)


def _tensors(made):
    return [x for x in keras.tree.flatten(made) if x is not None]


def _joined(specs):
    """The (sizes, dtype) that hold for the results of both functions, or None."""
    if len(specs[0]) != len(specs[1]):
        return None
    joined = []
    for (sizes, dtype), (other_sizes, other_dtype) in zip(*specs, strict=True):
        if dtype != other_dtype or len(sizes) != len(other_sizes):
            return None
        both = [_joined_size(n, m) for n, m in zip(sizes, other_sizes, strict=True)]
        if None in both:
            return None
        joined.append((tuple(both), dtype))
    return joined


def _joined_size(size, other):
    if size == other:
        return size
    return unknown() if is_dynamic(size) or is_dynamic(other) else None
