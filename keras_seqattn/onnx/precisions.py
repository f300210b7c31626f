"""The precisions of a file, as data: the function that rewrites the float graph, and the tolerance.

To add a precision, add one row: `register_precision(Precision("mine", rewrite=..., ...))`.
"""

import dataclasses
from collections.abc import Callable

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ExportError
from keras_seqattn.onnx.measures import LARGEST, MEAN, Measure
from keras_seqattn.onnx.targets import add_row, find_row


@dataclasses.dataclass(frozen=True)
class Precision:
    """One way to write the numbers of a file.

    Attributes:
        name: the name for users, also in the metadata of the file.
        description: a few words for the command line.
        tolerance: the maximum error of an accepted file.
        measure: how the error is measured.
        rewrite: None, or a function(model, parts=1, progress=None) that changes the float
            `onnx_ir.Model` in place. `parts` is the number of graphs in the bundle, and `progress`
            is None or a function of (done, total).
        exact: whether the file computes the same as Keras, except for rounding. Then greedy tokens
            must be equal, and an error above the tolerance is accepted if a change in the last bit
            of the weights explains it.

    Raises:
        ExportError: an attribute has another type.
    """

    name: str
    description: str
    tolerance: float
    measure: Measure = MEAN
    rewrite: Callable | None = None
    exact: bool = False

    def __post_init__(self):
        number = isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool)
        if not number or not self.tolerance >= 0:
            raise ExportError(
                f"tolerance of a precision is a number from 0, not {shown(self.tolerance)}"
            )
        if not isinstance(self.measure, Measure):
            raise ExportError(f"measure of a precision is a Measure, not {shown(self.measure)}")
        if self.rewrite is not None and not callable(self.rewrite):
            raise ExportError(f"rewrite of a precision is a function, not {shown(self.rewrite)}")


PRECISIONS = {}


def register_precision(precision):
    """Add a precision, so that `export` and `verify` know it in this process.

    `keras_seqattn.cli.main`, called in the same process, knows it, too.

    Args:
        precision: Precision.

    Returns:
        `precision`.

    Raises:
        ExportError: the argument is not a Precision, or another precision has the same name.
    """
    return add_row(PRECISIONS, Precision, "precision", precision)


def get_precision(name):
    """The precision with that name.

    Raises:
        ExportError: the name is unknown.
    """
    return find_row(PRECISIONS, Precision, "precision", name)


def _quantized(precision, head_bits=None):
    def rewrite(model, parts=1, progress=None):
        from keras_seqattn.onnx.quantize import quantize

        # After the layers, the vocabulary is the largest part of the encoder of an encoder-decoder.
        quantize(model, precision, head_bits=head_bits, tables=parts > 1, progress=progress)

    return rewrite


def _float16(model, parts=1, progress=None):
    from keras_seqattn.onnx.half import to_float16

    to_float16(model, progress)


# Different summation orders, over up to some tens of layers.
register_precision(Precision("fp32", "float32, as Keras computes", 1e-4, LARGEST, exact=True))
# Measured: SmolLM2 and MiniLM 0.001, tiny re-randomised models of all families 0.0004 to 0.004, and
# 0.0074 with 11 layers. A wrong mask or scale gives 0.1 and more.
register_precision(Precision("float16", "float16 weights and activations", 0.02, rewrite=_float16))
# The error of rounding weights (and activations to 8 bits) on random tokens. It is larger than on
# text. Measured: SmolLM2 0.04 and 0.24, MiniLM 0.15 (int8, as much as quantize_dynamic of
# onnxruntime), tiny re-randomised models up to 0.05 and 0.5; their Gaussian weights are the worst
# case for int4. A wrong scale, nibble order or zero point gives 1 and more.
register_precision(Precision("int8", "8-bit matrix products", 0.3, rewrite=_quantized("int8")))
register_precision(Precision("int4", "4-bit weights in blocks", 0.6, rewrite=_quantized("int4")))
register_precision(
    Precision("int4_int8_head", "int4 with an 8-bit head", 0.6, rewrite=_quantized("int4", 8))
)
