"""Every public function of keras.ops and every layer of keras.layers is exported, or refused with a
reason."""

import keras
import pytest

from tests.onnx.cases import refused, tables
from tests.onnx.cases.inputs import SIZES
from tests.onnx.cases.running import Case, outcomes

# Most names in one model: an export has costs of its own.
_TOGETHER = 45
# PyTorch computes eagerly at once. The others compile for every shape.
RUNS = SIZES if keras.backend.backend() == "torch" else SIZES[:1]


def groups(cases):
    """(name of the first, list of cases) of some names each."""
    names = sorted(cases)
    for start in range(0, len(names), _TOGETHER):
        part = names[start : start + _TOGETHER]
        yield pytest.param([case for name in part for case in cases[name]], id=part[0])


OPS, LAYERS = tables.op_cases(), tables.layer_cases()


def test_every_function_has_a_case():
    assert set(tables.public_ops()) == set(OPS) | refused.NO_TENSORS
    assert set(tables.public_layers()) == set(LAYERS) | set(refused.NO_LAYERS)


def test_at_least_95_of_100_functions_are_exported():
    assert len(set(OPS) & set(refused.OPS)) <= 0.05 * len(OPS)


@pytest.mark.parametrize("cases", [*groups(OPS), *groups(LAYERS)])
def test_the_file_computes_what_keras_computes(cases):
    """What Keras refuses itself on this backend is left out."""
    found = outcomes([case for case in cases if not refused.is_refused(case.name)], RUNS)
    wrong = {n: o for n, o in found.items() if o.state not in ("ok", "not in Keras")}
    wrong = {n: o for n, o in wrong.items() if n not in refused.DIFFERENT or o.state != "wrong"}
    assert not wrong, "\n".join(f"{n}: {o.state} {o.error} {o.text}" for n, o in wrong.items())


def test_what_is_refused_is_refused_in_words():
    both = (*OPS.values(), *LAYERS.values())
    cases = [case for cases in both for case in cases if refused.is_refused(case.name)]
    assert {n.name for n in cases} >= set(refused.CASES)
    for name, outcome in outcomes(cases, SIZES[:1]).items():
        assert outcome.state in ("refused", "not in Keras"), f"{name}: {outcome}"


def test_a_wrong_result_is_found():
    drawn = Case(
        "drawn", lambda x: x + keras.ops.cast(keras.ops.shape(x)[1] * 0, "float32"), ("x",)
    )
    assert outcomes([drawn])["drawn"].state == "ok"
    counts = iter(range(100))
    other = Case("other", lambda x: x + float(next(counts)), ("x",))
    assert outcomes([other])["other"].state == "wrong"
