"""What lowerings of convolutions and pooling share: layouts, padding, lengths of results.

The operators of ONNX want the channels on axis 1. For data with the channels last, each lowering
puts a Transpose before and after its node, and `passes/channels_first.py` removes nearly all.
"""

from keras import backend, ops

from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.lower.shaping import transpose
from keras_seqattn.onnx.sizes import is_dynamic


def spatial_tuple(value, rank):
    """One int for each spatial axis, from an int or a sequence."""
    return (value,) * rank if isinstance(value, int) else tuple(int(n) for n in value)


def is_channels_last(data_format):
    """Whether the data format, or the default of Keras for None, has the channels last."""
    return (data_format or backend.image_data_format()) == "channels_last"


def channels_first(tracer, x, data_format):
    """`x` with the channels on axis 1."""
    if not is_channels_last(data_format):
        return x
    last = len(x.sizes) - 1
    return transpose(tracer, x, [0, last, *range(1, last)])


def as_given(tracer, x, data_format):
    """`x`, which has the channels on axis 1, in the data format."""
    if not is_channels_last(data_format):
        return x
    return transpose(tracer, x, [0, *range(2, len(x.sizes)), 1])


class Windows:
    """Windows that slide over the spatial axes of a tensor with the channels on axis 1.

    Args:
        kernel, strides, dilations: tuples of ints, one for each spatial axis.
        padding: "valid" or "same".
    """

    def __init__(self, kernel, strides, dilations, padding):
        if padding not in ("valid", "same"):
            raise ExportError(f"padding must be 'valid' or 'same', not {padding!r}")
        self.kernel, self.strides, self.dilations = kernel, strides, dilations
        self.is_same = padding == "same"
        # The number of places that a window reaches over, with the gaps of its dilation.
        self.extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]

    def lengths(self, spatial):
        """The number of windows on each axis. Sizes stay Sizes."""
        if self.is_same:
            return [-(-n // s) for n, s in zip(spatial, self.strides, strict=True)]
        return [
            (n - e) // s + 1 for n, e, s in zip(spatial, self.extent, self.strides, strict=True)
        ]

    def total_padding(self, spatial):
        """The padding of "same" on each axis, both sides together.

        Args:
            spatial: the lengths: ints and scalar Symbols.
        """
        return [
            self._padding(n, e, s)
            for n, e, s in zip(spatial, self.extent, self.strides, strict=True)
        ]

    def _padding(self, n, extent, stride):
        if stride == 1 or not self.is_same:
            return extent - 1 if self.is_same else 0
        # A window of one place never reaches over the end.
        if extent == 1:
            return 0
        total = -(-n // stride) * stride - stride + extent - n
        return max(total, 0) if isinstance(total, int) else ops.maximum(total, 0)

    def pads_by_kernel(self):
        """Whether onnxruntime's auto_pad gives the padding of "same".

        It refuses dilations, and gives a negative padding where a stride is longer than a window.
        """
        return all(d == 1 for d in self.dilations) and all(
            e >= s for e, s in zip(self.extent, self.strides, strict=True)
        )

    def attributes(self, pads=None, auto_pad=None):
        """The attributes of a node, without dilations that are 1."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "dilations": list(self.dilations) if any(d > 1 for d in self.dilations) else None,
            "pads": list(pads) if pads and any(pads) else None,
            "auto_pad": auto_pad,
        }


def split_padding(totals):
    """(before, after): where the total is odd, the end has one more, as on all backends."""
    before = [n // 2 for n in totals]
    return before, [n - b for n, b in zip(totals, before, strict=True)]


def padded(tracer, x, windows, mode="constant"):
    """`x`, with the channels on axis 1, with the padding of "same" as its own node.

    Args:
        mode: of the operator Pad.
    """
    # Scalars of the graph for dynamic lengths: the padding depends on them.
    lengths = [tracer.size(x, axis) for axis in range(2, len(x.sizes))]
    before, after = split_padding(windows.total_padding(lengths))
    sizes = list(x.sizes)
    known = [tracer.numbers(side, "a padding") for side in (before, after)]
    sizes[2:] = [n + a + b for n, a, b in zip(sizes[2:], *known, strict=True)]
    pads = tracer.vector([0, 0, *before, 0, 0, *after])
    return tracer.emit("Pad", [x, pads], {"mode": mode}, sizes=sizes, dtype=x.dtype)


def padding_attributes(tracer, x, windows):
    """(x, attributes): the padding of a node as attributes, or, if it has to be, as a node before.

    Args:
        x: Symbol with the channels on axis 1.
        windows: Windows.
    """
    spatial = x.sizes[2:]
    totals = windows.total_padding([1 if is_dynamic(n) else n for n in spatial])
    fixed = [
        not is_dynamic(n) or s == 1 or e == 1
        for n, s, e in zip(spatial, windows.strides, windows.extent, strict=True)
    ]
    if not windows.is_same or all(fixed):
        before, after = split_padding(totals)
        return x, windows.attributes([*before, *after])
    if windows.pads_by_kernel():
        return x, windows.attributes(auto_pad="SAME_UPPER")
    return padded(tracer, x, windows), windows.attributes()
