"""The equations of recurrent networks, one row at a time, without padding, in float64."""

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def lstm(xs, kernel, recurrent_kernel, bias, state=None):
    """Keras's LSTM, its gates in the order input, forget, candidate, output.

    Args:
        xs: (t, m).
        state: (h, c), each (n,).

    Returns:
        (t, n) and the last (h, c).
    """
    units = len(recurrent_kernel)
    h, c = (np.zeros(units), np.zeros(units)) if state is None else state
    outputs = []
    for x in xs:
        i, f, g, o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs), (h, c)


def gru(xs, kernel, recurrent_kernel, bias):
    """Keras's GRU with `reset_after=False`, its gates in the order update, reset, candidate.

    The update gate is the paper's, negated: it keeps the old state.
    """
    units = len(recurrent_kernel)
    h, outputs = np.zeros(units), []
    for x in xs:
        from_x = np.split(x @ kernel + bias, 3)
        keep = sigmoid(from_x[0] + h @ recurrent_kernel[:, :units])
        reset = sigmoid(from_x[1] + h @ recurrent_kernel[:, units : 2 * units])
        candidate = np.tanh(from_x[2] + (reset * h) @ recurrent_kernel[:, 2 * units :])
        h = keep * h + (1 - keep) * candidate
        outputs.append(h)
    return np.array(outputs), h


def additive_attention(query, values, weights):
    """The context (m,) and the probabilities (s,) of one query (n,) for values (s, m).

    Args:
        weights: dict with query/kernel, key/kernel and score_vector/kernel.
    """
    scores = [
        np.tanh(query @ weights["query/kernel"] + h @ weights["key/kernel"])
        @ weights["score_vector/kernel"][:, 0]
        for h in values
    ]
    probabilities = softmax(np.array(scores))
    return sum(a * h for a, h in zip(probabilities, values, strict=True)), probabilities


def attentive_decoder(xs, values, state, weights):
    """The decoder of Bahdanau et al., appendix A.

    Args:
        xs: (t, m).
        values: (s, c), real positions only.
        state: (n,).
        weights: dict with the weights of `AttentiveDecoder` by their paths within it.

    Returns:
        the states that asked (t, n), the contexts (t, c), the last state (n,) and the
        probabilities (t, s).
    """
    attention = {
        path.removeprefix("attention/"): w
        for path, w in weights.items()
        if path.startswith("attention/")
    }
    w_z, w_r, w = np.split(weights["input_gates/kernel"], 3, axis=1)
    b_z, b_r, b = np.split(weights["input_gates/bias"], 3)
    c_z, c_r, c_h = np.split(weights["context_gates/kernel"], 3, axis=1)
    u_z, u_r = np.split(weights["state_gates/kernel"], 2, axis=1)
    asked, contexts, rows = [], [], []
    for x in xs:
        context, probabilities = additive_attention(state, values, attention)
        z = sigmoid(x @ w_z + state @ u_z + context @ c_z + b_z)
        r = sigmoid(x @ w_r + state @ u_r + context @ c_r + b_r)
        new = np.tanh(x @ w + (r * state) @ weights["candidate/kernel"] + context @ c_h + b)
        asked.append(state)
        contexts.append(context)
        rows.append(probabilities)
        state = (1 - z) * state + z * new
    return np.array(asked), np.array(contexts), state, np.array(rows)
