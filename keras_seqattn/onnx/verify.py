"""The proof that a file computes what the Keras model computes: both run, compared."""

import dataclasses
import json
import os
import warnings

import keras
import numpy as np
import onnxruntime

from keras_seqattn.errors import BundleError, ExportError
from keras_seqattn.onnx.sampler import Sampler, padding_mask

# fp32: different summation orders, over up to some tens of layers. int8, int4: what rounding
# weights (and activations to 8 bits) costs on random tokens, which is more than on text. Measured:
# SmolLM2 0.04 and 0.24, MiniLM 0.15 (int8, as much as onnxruntime's own quantize_dynamic), tiny
# re-randomised models up to 0.05 and 0.5, whose Gaussian weights are the worst case for int4. A
# wrong scale, nibble order or zero point gives 1 and more.
TOLERANCES = {"fp32": 1e-4, "int8": 0.3, "int4": 0.6}


@dataclasses.dataclass
class Case:
    """One comparison: what was run and how far apart the results were.

    Attributes:
        name: batch size, length, padding, cached steps.
        error: fp32: the largest difference over max(1, the largest magnitude). Quantised: the
            relative root-mean-square difference.
        rows: how many output positions were compared.
        agreement: for logits, the share of positions where both prefer the same token.
    """

    name: str
    error: float
    rows: int = 1
    agreement: float | None = None


@dataclasses.dataclass
class Report:
    """What `verify` compared.

    Attributes:
        precision: of the file.
        tolerance: the largest error allowed.
        cases: every comparison, a `Case` each.
    """

    precision: str
    tolerance: float
    cases: list

    @property
    def worst(self):
        """The largest error of all cases; NaN if any is."""
        return float(np.max([case.error for case in self.cases]))

    @property
    def error(self):
        """What is held against the tolerance: the worst case for fp32, the mean over all compared
        positions for quantised files, whose error on a single token is mostly chance.
        """
        if self.precision == "fp32":
            return self.worst
        compared = [case for case in self.cases if case.rows]
        return float(
            np.average([case.error for case in compared], weights=[case.rows for case in compared])
        )

    @property
    def ok(self):
        """Whether the error is within the tolerance (NaN is not)."""
        return self.error <= self.tolerance

    def summary(self):
        """One line for people."""
        state = "agrees with" if self.ok else "DIFFERS from"
        text = f"onnxruntime {state} Keras in {len(self.cases)} comparisons: "
        text += f"error {self.error:.1e}, {self.precision} tolerance {self.tolerance:g}"
        agreements = [(c.agreement, c.rows) for c in self.cases if c.agreement is not None]
        if agreements and self.precision != "fp32":
            share = np.average(
                [a for a, _ in agreements], weights=[max(r, 1) for _, r in agreements]
            )
            text += f", same token preferred in {share:.0%} of random contexts"
        return text

    def to_dict(self):
        """For parity.json."""
        return {
            "precision": self.precision,
            "tolerance": self.tolerance,
            "error": self.error,
            "worst": self.worst,
            "cases": [dataclasses.asdict(case) for case in self.cases],
        }


def verify(path, model, *, progress=None):
    """Run an exported file or bundle against the Keras model it came from.

    Batch sizes 1 and 3 and several lengths, length 1 included, with padding on either side; for
    decoders also a prefill with cached steps against the full pass, and greedy tokens.

    Args:
        path: a bundle folder or an .onnx file.
        model: the Keras model.
        progress: called with (done, total) after each comparison.

    Returns:
        Report.

    Raises:
        BundleError: if onnxruntime cannot load the file.
    """
    session = _session(path)
    properties = session.get_modelmeta().custom_metadata_map
    precision = properties.get("keras_seqattn.precision", "fp32")
    compare = _Comparison(model, session, precision)
    jobs = list(compare.jobs())
    cases = []
    for i, job in enumerate(jobs):
        cases.append(job())
        if progress is not None:
            progress(i + 1, len(jobs))
    return Report(precision, TOLERANCES[precision], cases)


def _session(path):
    file = os.path.join(path, "model.onnx") if os.path.isdir(path) else path
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError(f"onnxruntime cannot load {file}: {error}") from error


class _Comparison:
    """The comparisons that fit one model."""

    def __init__(self, model, session, precision):
        self.model, self.session, self.precision = model, session, precision
        self.outputs = [o.name for o in session.get_outputs()]
        self.pasts = [i for i in session.get_inputs() if i.name.startswith("past_key_values.")]
        self.sampler = Sampler(model)

    def jobs(self):
        for batch, length, side in self.sampler.cases():
            yield lambda b=batch, n=length, s=side: self.full(b, n, s)
        if self.pasts:
            for batch, side in ((1, None), (3, "left"), (3, "right")):
                yield lambda b=batch, s=side: self.cached(b, 7, self.sampler.steps(), s)
            yield self.greedy

    def full(self, batch, length, side):
        """One pass over whole sequences."""
        inputs = self.sampler.inputs(batch, length, side)
        expected, actual = self.keras(inputs), self.ort(inputs)
        name = f"batch {batch}, length {length}" + (f", {side} padding" if side else "")
        return self._case(name, expected, actual, self.sampler.mask(inputs))

    def cached(self, batch, length, steps, side):
        """Prefill and single steps against one full pass."""
        inputs = self.sampler.inputs(batch, length + steps, None)
        inputs["attention_mask"][:, :length] = padding_mask((batch, length), side)
        expected = self.keras(inputs)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        cache, parts = self.empty_cache(batch), []
        for start, end in [(0, length), *((n, n + 1) for n in range(length, length + steps))]:
            feed = {"input_ids": ids[:, start:end], "attention_mask": mask[:, :end], **cache}
            outputs = self.ort(feed)
            cache = next_cache(outputs)
            parts.append(outputs["logits"])
        name = f"batch {batch}, prefill {length} + {steps} cached steps" + (
            f", {side} padding" if side else ""
        )
        return self._case(name, expected, {"logits": np.concatenate(parts, axis=1)}, mask)

    def greedy(self):
        """Greedy tokens of the file, each checked against Keras's choice after the same tokens."""
        inputs = self.sampler.inputs(1, 7, None)
        ids, cache, step = inputs["input_ids"], self.empty_cache(1), inputs["input_ids"]
        for _ in range(self.sampler.steps()):
            mask = np.ones_like(ids)
            outputs = self.ort({"input_ids": step, "attention_mask": mask, **cache})
            cache, step = next_cache(outputs), outputs["logits"][:, -1:].argmax(-1)
            ids = np.concatenate([ids, step], axis=1)
        expected = self.keras(
            {"input_ids": ids[:, :-1], "attention_mask": np.ones_like(ids[:, :-1])}
        )
        chosen = expected["logits"][:, 6:].argmax(-1)
        agreement = float((chosen == ids[:, 7:]).mean())
        name = f"{chosen.size} greedy tokens"
        # A quantised file may prefer another token; that is information, not a failure.
        if self.precision != "fp32":
            return Case(name, 0.0, 0, agreement)
        return Case(name, 1.0 - agreement, chosen.size, agreement)

    def _case(self, name, expected, actual, mask):
        errors, agreement = [], None
        for output, value in expected.items():
            a, b = value.astype(np.float64), actual[output].astype(np.float64)
            if a.shape != b.shape:
                raise ExportError(
                    f"{name}: {output} has shape {b.shape} in the file, {a.shape} in Keras"
                )
            if mask is not None and a.shape[:2] == mask.shape and a.ndim > 1:
                a, b = a[mask != 0], b[mask != 0]
            errors.append(difference(a, b, self.precision))
            if output == "logits":
                agreement = float((a.argmax(-1) == b.argmax(-1)).mean())
        return Case(name, max(errors), a.size // a.shape[-1], agreement)

    def empty_cache(self, batch):
        """Past keys and values of length 0."""
        return {
            i.name: np.zeros((batch, i.shape[1], 0, i.shape[3]), np.float32) for i in self.pasts
        }

    def keras(self, inputs):
        """The Keras model's outputs by name."""
        outputs = _quietly(lambda: self.model(self.sampler.for_keras(inputs), training=False))
        if not isinstance(outputs, dict):
            flat = keras.tree.flatten(outputs)
            outputs = dict(zip(self.outputs, flat, strict=True))
        return {k: keras.ops.convert_to_numpy(v) for k, v in outputs.items()}

    def ort(self, inputs):
        """The file's outputs by name."""
        if self.pasts and self.pasts[0].name not in inputs:
            inputs = {**inputs, **self.empty_cache(len(inputs["input_ids"]))}
        try:
            values = self.session.run(None, inputs)
        except Exception as error:  # onnxruntime's own errors share no public base class
            reason = str(error).strip().splitlines()[0]
            raise BundleError(f"the file is of another model: it cannot run ({reason})") from error
        return dict(zip(self.outputs, values, strict=True))


def next_cache(outputs):
    """The present keys and values of one run, named as the next run wants them."""
    return {
        name.replace("present.", "past_key_values."): value
        for name, value in outputs.items()
        if name.startswith("present.")
    }


def difference(expected, actual, precision):
    """How far apart two arrays are: see `Report`."""
    if expected.size == 0:
        return 0.0
    if precision == "fp32":
        return float(np.abs(expected - actual).max() / max(1.0, np.abs(expected).max()))
    return float(np.sqrt(np.mean((expected - actual) ** 2) / max(1e-12, np.mean(expected**2))))


def _quietly(function):
    """Run Keras for its numbers only: no gradients, and no advice about an axis of length 1."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using a softmax over axis")
        if keras.backend.backend() != "torch":
            return function()
        import torch

        with torch.no_grad():
            return function()


def write_report(report, folder, extra):
    """Write parity.json: the report, and `extra` (the bundle, its files and digests)."""
    content = {**extra, **(report.to_dict() if report else {"cases": []})}
    with open(os.path.join(folder, "parity.json"), "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
