"""Learning rates against the paper's equation and transformers' schedules."""

import keras
import numpy as np
import pytest
import torch
import transformers

from keras_seqattn.training import NoamSchedule, WarmupSchedule
from tests.helpers import to_numpy

STEPS = 60


def rates(schedule):
    return np.array([to_numpy(schedule(keras.ops.convert_to_tensor(n))) for n in range(STEPS)])


def theirs(make, *arguments):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = make(optimizer, *arguments)
    found = []
    for _ in range(STEPS):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def test_noam_is_equation_3():
    schedule = NoamSchedule(hidden_dim=52, warmup_steps=13, scale=2.0)
    n = np.arange(1, STEPS + 1, dtype="float64")
    expected = 2 * 52**-0.5 * np.minimum(n**-0.5, n * 13**-1.5)
    np.testing.assert_allclose(rates(schedule), expected, rtol=1e-5)
    assert rates(schedule).argmax() == 12


@pytest.mark.parametrize(
    ("decay", "make", "warmup", "total"),
    [
        ("inverse_sqrt", transformers.get_inverse_sqrt_schedule, 13, None),
        ("linear", transformers.get_linear_schedule_with_warmup, 13, 47),
        ("linear", transformers.get_linear_schedule_with_warmup, 0, 47),
        # Beyond its end transformers lets the cosine rise again.
        ("cosine", transformers.get_cosine_schedule_with_warmup, 13, STEPS),
        ("cosine", transformers.get_cosine_schedule_with_warmup, 0, STEPS),
        ("constant", transformers.get_constant_schedule_with_warmup, 13, None),
    ],
)
def test_warmup_and_decay_are_those_of_transformers(decay, make, warmup, total):
    expected = theirs(make, *[number for number in (warmup, total) if number is not None])
    actual = rates(WarmupSchedule(0.3, warmup, decay, total))
    # Near the cosine's end 1 + cos is a difference of float32 numbers close to 1.
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-7)


def test_cosine_stays_at_zero():
    assert np.all(rates(WarmupSchedule(0.3, 3, "cosine", 20))[20:] == 0)


@pytest.mark.parametrize("schedule", [NoamSchedule(8, 3), WarmupSchedule(0.1, 3, "linear", 9)])
def test_optimizers_take_and_store_them(schedule):
    optimizer = keras.optimizers.SGD(schedule)
    copy = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    variable = keras.Variable(np.zeros(1, "float32"))
    for _ in range(3):
        copy.apply([keras.ops.ones(1)], [variable])
    np.testing.assert_allclose(to_numpy(variable), -rates(schedule)[:3].sum(), rtol=1e-5)


def test_refuses_what_it_cannot_do():
    with pytest.raises(ValueError, match="decay must be one of"):
        WarmupSchedule(0.1, 3, "step")
    with pytest.raises(ValueError, match="at least 1 warm-up step"):
        WarmupSchedule(0.1, 0)
    with pytest.raises(ValueError, match="total_steps above 3"):
        WarmupSchedule(0.1, 3, "cosine")
