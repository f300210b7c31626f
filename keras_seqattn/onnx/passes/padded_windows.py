"""Joins a padding with the convolution or pooling after it.

Pattern: Pad with zeros and constant widths, whose only reader is Conv, or MaxPool of a Relu.
Condition: only spatial axes are padded, no width is negative, and the reader has no automatic
    padding. MaxPool pads with the smallest number; after a Relu, zeros are that, too, if each
    window has a place inside, so the widths are less than the windows.
Rewrite: the widths are added to the attribute `pads` of the reader.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.matching import is_op, only_use


def apply(graph):
    """Rewrite `graph` in place."""
    for node in list(graph):
        reader = only_use(node.outputs[0]) if is_op(node, "Pad") else None
        widths = _widths(node) if reader is not None else None
        if (
            widths is not None
            and node.outputs[0] is reader.inputs[0]
            and _may(node, reader, widths)
        ):
            old = list(reader.attributes["pads"].as_ints()) if "pads" in reader.attributes else 0
            total = [a + b for a, b in zip(widths, old or [0] * len(widths), strict=True)]
            reader.attributes["pads"] = ir.AttrInt64s("pads", total)
            reader.replace_input_with(0, node.inputs[0])


def _widths(node):
    """list of the widths of the spatial axes, as in `pads`, or None."""
    mode = node.attributes.get_string("mode", "constant")
    content = node.inputs[2] if len(node.inputs) > 2 else None
    zeros = content is None or (content.const_value is not None and not content.const_value.numpy())
    with_axes = len(node.inputs) > 3 and node.inputs[3] is not None
    if mode != "constant" or not zeros or with_axes or node.inputs[1].const_value is None:
        return None
    widths = node.inputs[1].const_value.numpy().tolist()
    rank = len(widths) // 2
    if rank < 3:
        return None
    outer = [widths[axis] for axis in (0, 1, rank, rank + 1)]
    inner = widths[2:rank] + widths[rank + 2 :]
    return None if any(outer) or min(inner, default=0) < 0 else inner


def _may(node, reader, widths):
    if "auto_pad" in reader.attributes:
        return False
    if is_op(reader, "Conv"):
        return True
    if not is_op(reader, "MaxPool") or "pads" in reader.attributes:
        return False
    size = list(reader.attributes["kernel_shape"].as_ints()) * 2
    return is_op(node.inputs[0].producer(), "Relu") and all(
        w < k for w, k in zip(widths, size, strict=True)
    )
