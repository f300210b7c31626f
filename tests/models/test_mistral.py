import pytest
from transformers import MistralConfig

from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    parity_error,
    save_reference,
)
from tests.models.test_llama import SIZES


def _saved(directory, **changes):
    reference = make_reference("MistralForCausalLM", MistralConfig(**(SIZES | changes)))
    return reference, save_reference(reference, directory)


@pytest.mark.parametrize("window", [1, 4, 100, None])
def test_windows_shorter_and_longer_than_the_sequence(tmp_path, window):
    reference, directory = _saved(tmp_path / "a", sliding_window=window)
    model = check_parity(reference, directory)
    assert model.family == "mistral"
    check_round_trip(model, reference, tmp_path / "b")


@pytest.mark.parametrize("window", [3, 5, None])
def test_a_window_that_is_off_by_one_does_not_pass(tmp_path, window):
    reference, directory = _saved(tmp_path, sliding_window=4)
    save_reference(reference, directory, sliding_window=window)
    assert parity_error(reference, directory) > 10 * TOLERANCE
