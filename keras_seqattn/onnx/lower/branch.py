"""A choice between two computations as ONNX If."""

import keras

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.lower.scan import body_result


@lowers("Cond")
def cond(tracer, operation, pred, true_fn, false_fn):
    """`keras.ops.cond`. Both functions may read outer values and must return the same shapes."""
    made, branches = [], []
    for name, function in (("then", true_fn), ("else", false_fn)):
        with tracer.body(name) as body:
            made.append(keras.tree.map_structure(tracer.symbol, function()))
            for symbol in keras.tree.flatten(made[-1]):
                body.outputs.append(body_result(tracer, body, symbol))
        branches.append(body)
    specs = [[(x.sizes, x.dtype) for x in keras.tree.flatten(branch)] for branch in made]
    if specs[0] != specs[1]:
        raise ExportError(
            f"{tracer.where()}: the two functions of ops.cond return different shapes or dtypes: "
            f"{specs[0]} and {specs[1]}"
        )
    attributes = dict(zip(("then_branch", "else_branch"), branches, strict=True))
    results = tracer.emit("If", [tracer.symbol(pred)], attributes, outputs=specs[0])
    return keras.tree.pack_sequence_as(made[0], results)
