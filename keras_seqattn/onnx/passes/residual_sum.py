"""Residual additions are written as Sum where a layer normalisation follows.

onnxruntime fuses Add + LayerNormalization into SkipLayerNormalization when it loads a file, and on
CPU that kernel is several times slower than the two it replaces; it leaves Sum alone.

Pattern: Add of two non-constant values of which a reader is a LayerNormalization.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.matching import is_op


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        if is_op(node, "Add") and _is_residual(node):
            _rewrite(graph, node)


def _is_residual(add):
    readers = [use.node for use in add.outputs[0].uses()]
    constant = any(v.const_value is not None for v in add.inputs)
    return not constant and any(is_op(r, "LayerNormalization") for r in readers)


def _rewrite(graph, add):
    old = add.outputs[0]
    new = ir.Value(name=old.name, shape=old.shape, type=old.type)
    graph.insert_before(add, ir.node("Sum", list(add.inputs), outputs=[new], name=add.name))
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    graph.remove(add, safe=True)
