"""Random pictures for tests."""

import numpy as np

LAST, FIRST = {"data_format": "channels_last"}, {"data_format": "channels_first"}


def pictures(*shape, dtype="float32", seed=0):
    """Floats from 0 to 1, or integers from 0 to 254."""
    values = np.random.default_rng(seed).uniform(0, 1, shape)
    return (values if dtype == "float32" else values * 255).astype(dtype)
