"""Arguments of layers are checked where they are given, by a message that names them."""

import numpy as np
import pytest

from keras_seqattn import layers
from keras_seqattn.layers import mechanisms

pytestmark = pytest.mark.backend_free

MAKERS = {
    "attention": lambda **k: layers.MultiHeadAttention(**({"num_heads": 2, "head_dim": 4} | k)),
    "gated_linear": lambda **k: layers.GatedLinearAttention(
        **({"num_heads": 2, "head_dim": 4} | k)
    ),
    "feed_forward": lambda **k: layers.FeedForward(**({"intermediate_dim": 4} | k)),
    "encoder": lambda **k: layers.EncoderBlock(
        **({"num_heads": 2, "head_dim": 4, "intermediate_dim": 8} | k)
    ),
    "local": lambda **k: mechanisms.Local(**({"left": 2, "right": 2} | k)),
    "performer": lambda **k: mechanisms.Performer(**k),
}
SIZES = [0, -1, 2.5, "x", True, None, 10**30, [3], float("nan")]
POSITIVE = [0, -1.0, "x", True, float("nan"), float("inf"), 1e-300, 1e300]
CASES = [
    *[("attention", "num_heads", value) for value in SIZES],
    *[("feed_forward", "intermediate_dim", value) for value in SIZES],
    *[("encoder", "head_dim", value) for value in SIZES],
    *[("performer", "num_features", value) for value in SIZES if value is not None],
    *[("gated_linear", "gate_temperature", value) for value in POSITIVE],
    *[("attention", "softcap", value) for value in POSITIVE],
    *[("attention", "dropout", value) for value in (1.0, -0.1, "x", True, None, float("nan"))],
    *[("attention", "window", value) for value in ((3,), "x", (-1, 0), (2.5, 0), 3)],
    *[("attention", "causal", value) for value in ("x", 2, None)],
    *[("local", "left", value) for value in (-1, 2.5, "x", True)],
    *[("feed_forward", "activation", value) for value in ("no such", 3, [])],
    *[("encoder", "norm", value) for value in ("no such", 3)],
    *[("encoder", "attention", value) for value in ("x", 3)],
    *[("attention", "kernel_initializer", value) for value in ("no such", 3)],
]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_what_is_not_valid_is_refused_by_name(kind, name, value):
    with pytest.raises(ValueError, match=name) as refused:
        MAKERS[kind](**{name: value})
    assert len(str(refused.value)) < 400 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("attention", "num_heads", np.int64(3)),
        ("attention", "softcap", np.float32(30.0)),
        ("attention", "window", [3, None]),
        ("gated_linear", "gate_temperature", 16),
        ("feed_forward", "activation", "quick_gelu"),
        ("encoder", "attention", None),
    ],
)
def test_what_is_valid_passes(kind, name, value):
    MAKERS[kind](**{name: value})
