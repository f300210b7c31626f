"""The recurrence of the gated linear family, token by token in float64, by its definition."""

import numpy as np


def recurrence(query, key, value, log_decay=None, beta=None, mask=None, state=None):
    """`S_t = (I - beta_t k_t k_t') a_t S_{t-1} + beta_t k_t v_t'` and `o_t = S_t' q_t`.

    Args:
        As of `chunked_scan`, in NumPy.

    Returns:
        float64 (b, t, h, e) and (b, h, d, e).
    """
    batch, length, heads, value_dim = value.shape
    repeats = heads // query.shape[2]
    query, key = (x.astype("float64").repeat(repeats, 2) for x in (query, key))
    if log_decay is None:
        log_decay = np.zeros(value.shape[:3])
    decay = np.exp(log_decay.astype("float64"))
    decay = decay.repeat(repeats, 2) if decay.ndim == 4 else decay[..., None]
    dim = query.shape[3]
    state = np.zeros((batch, heads, dim, value_dim)) if state is None else state.astype("float64")
    outputs = np.zeros(value.shape)
    for t in range(length):
        k, v = key[:, t, :, :, None], value[:, t, :, None, :].astype("float64")
        new = decay[:, t, :, :, None] * state
        if beta is not None:
            v = beta[:, t, :, None, None] * (v - k.swapaxes(2, 3) @ new)
        new = new + k * v
        real = True if mask is None else mask[:, t, None, None, None] != 0
        state = np.where(real, new, state)
        outputs[:, t] = np.einsum("bhd,bhde->bhe", query[:, t], state)
    return outputs, state
