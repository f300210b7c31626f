"""The results of a verification, and how they are written to a file."""

import dataclasses
import json
import os

import numpy as np

from keras_seqattn.onnx import measures
from keras_seqattn.onnx.precisions import Precision, get_precision

# A softmax of large scores, or a normalisation of small values, can enlarge the last bit a lot.
# Measured on 455 stacks of one to four gated delta, gated linear, state-space, attention, LSTM and
# GRU layers with re-randomised weights: Keras and onnxruntime are about equally far from float64
# (the geometric mean of the ratio is 0.9 to 1.3 for each kind). If they differ by more than 1e-4,
# they differ at most 3.0 times as much as changes in the last bit of the weights move Keras. In 20
# of the most sensitive stacks, an error of 0.1 % in a decay or in the scale of a norm, and of 0.5 %
# in a constant or a matrix, gave 5.3 times that and more. If the last bit alone moves Keras by more
# than a thousandth, a comparison would prove little.
_ROUNDINGS = 4
_SENSITIVE = 1e-3


@dataclasses.dataclass
class Case:
    """One comparison: what was run, and how far apart the results were.

    Attributes:
        name: batch size, length, padding, cached steps.
        error: by the measure of the precision. fp32: the largest difference over max(1, the
            largest magnitude). Others: the relative root-mean-square difference.
        rows: the number of compared output positions. It is 0 if no number was compared, because
            everything was empty, NaN or infinite.
        agreement: for logits, the share of positions where both prefer the same token.
        rounding: if the error of an exact file is above the tolerance: how far the outputs of Keras
            move if each weight and input changes in its last bit. Otherwise None.
    """

    name: str
    error: float
    rows: int = 1
    agreement: float | None = None
    rounding: float | None = None

    @property
    def is_rounding(self):
        """Whether rounding explains the error. Both sides round in each of their operations."""
        moved = self.rounding
        return moved is not None and moved <= _SENSITIVE and self.error <= _ROUNDINGS * moved


@dataclasses.dataclass
class Report:
    """The comparisons of `verify`.

    Attributes:
        precision: name of the precision of the file.
        tolerance: the maximum error.
        cases: every comparison, a `Case` each.
        rehearsed: list of str, other parts of a bundle that were used, such as its chat template.
        equal_lengths: str, which inputs have one length, and which layer needs that. It is empty if
            each input has its own length.
        judgement: Precision that judges the cases. The default is the precision of the file.
        left_out: list of str, what was not compared because the model does not run on it, and why.
    """

    precision: str
    tolerance: float
    cases: list
    rehearsed: list = dataclasses.field(default_factory=list)
    equal_lengths: str = ""
    judgement: Precision | None = None
    left_out: list = dataclasses.field(default_factory=list)

    def __post_init__(self):
        if self.judgement is None:
            self.judgement = get_precision(self.precision)

    @property
    def worst(self):
        """The largest error of all cases."""
        return float(np.max([case.error for case in self.cases]))

    @property
    def compared(self):
        """Whether there was a number to compare. Equal NaN and empty arrays prove nothing."""
        return any(case.rows for case in self.cases)

    @property
    def error(self):
        """The error that is compared with the tolerance. For fp32, the worst case without cases
        that rounding explains. For others, the mean over all compared positions.
        """
        if not self.compared:
            return max((case.error for case in self.cases if not case.is_rounding), default=0.0)
        return self.judgement.measure.total(self.cases)

    @property
    def ok(self):
        """Whether something was compared, and the error is within the tolerance."""
        return self.compared and self.error <= self.tolerance

    def summary(self):
        """The result in one line for people."""
        if not self.compared and self.worst <= self.tolerance:
            return (
                f"nothing to compare in {len(self.cases)} comparisons: every output of Keras was "
                "empty, NaN or infinite"
            )
        state = "agrees with" if self.ok else "DIFFERS from"
        text = f"onnxruntime {state} Keras in {len(self.cases)} comparisons: "
        text += f"error {self.error:.1e}, {self.precision} tolerance {self.tolerance:g}"
        rounded = [case for case in self.cases if case.is_rounding]
        moved = max((c.rounding or 0 for c in self.cases), default=0)
        if moved > _SENSITIVE:
            text += f"; the last bit of the weights alone moves Keras by {moved:.1e}"
        if rounded:
            text += f"; {len(rounded)} with up to {max(c.error for c in rounded):.1e}, where the "
            text += f"last bit of the weights moves Keras by {max(c.rounding for c in rounded):.1e}"
        agreements = [(c.agreement, c.rows) for c in self.cases if c.agreement is not None]
        if agreements and not self.judgement.exact:
            share = np.average(
                [a for a, _ in agreements], weights=[max(r, 1) for _, r in agreements]
            )
            text += f", same token preferred in {share:.0%} of random contexts"
        text += f"; {self.equal_lengths}" if self.equal_lengths else ""
        return text + (f"; left out: {'; '.join(self.left_out)}" if self.left_out else "")

    def to_dict(self):
        """dict for parity.json."""
        return {
            "precision": self.precision,
            "tolerance": self.tolerance,
            "error": self.error,
            "worst": self.worst,
            "rehearsed": self.rehearsed,
            "equal_lengths": self.equal_lengths,
            "left_out": self.left_out,
            "cases": [dataclasses.asdict(case) for case in self.cases],
        }


def difference(expected, actual, precision):
    """How far apart two float64 arrays are, by the measure of a precision or of its name.

    NaN and infinities are equal if both arrays have the same. Otherwise the distance is infinite.
    """
    return measures.difference(expected, actual, get_precision(precision).measure)


def write_report(report, folder, extra):
    """Write parity.json: the report and `extra` (the bundle, its files and digests)."""
    content = {**extra, **(report.to_dict() if report else {"cases": []})}
    with open(os.path.join(folder, "parity.json"), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
