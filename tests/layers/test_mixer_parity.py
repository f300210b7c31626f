"""Mixers against the layers of transformers, with the same re-randomised weights."""

import numpy as np
import pytest
import torch
from keras import ops
from transformers import Lfm2Config, Mamba2Config, Qwen3NextConfig
from transformers.models.lfm2.modeling_lfm2 import Lfm2ShortConv
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from keras_seqattn import layers
from tests.helpers import compiled_on_jax, to_numpy
from tests.mechanisms import ragged_mask
from tests.models.reference import TOLERANCE, randomise_reference

WIDTH = 30


def short_convolution(bias):
    config = Lfm2Config(
        hidden_size=WIDTH,
        conv_L_cache=3,
        conv_bias=bias,
        num_hidden_layers=1,
        layer_types=["conv"],
    )
    return Lfm2ShortConv(config, 0), layers.ShortConvolution(3, use_bias=bias, name="mixer")


def gated_delta(bias):
    config = Qwen3NextConfig(
        hidden_size=WIDTH,
        linear_num_value_heads=6,
        linear_num_key_heads=2,
        linear_key_head_dim=5,
        linear_value_head_dim=7,
    )
    layer = layers.GatedDelta(6, 5, num_key_heads=2, value_dim=7, name="mixer")
    return Qwen3NextGatedDeltaNet(config, 0), layer


def state_space(bias):
    config = Mamba2Config(
        hidden_size=WIDTH,
        num_heads=6,
        head_dim=10,
        state_size=7,
        n_groups=2,
        chunk_size=16,
        use_bias=bias,
        time_step_limit=(0.1, 1.5),
    )
    layer = layers.StateSpace(
        6, 10, 7, num_groups=2, use_bias=bias, time_step_limit=(0.1, 1.5), name="mixer"
    )
    return Mamba2Mixer(config, 0), layer


NAMES = {"A_log": "time_steps/A_log", "dt_bias": "time_steps/dt_bias"}
NORMS = {"GatedDelta": "norm/scale", "StateSpace": "norm_scale"}


def with_weights_of(reference, layer):
    layer.build((None, None, WIDTH))
    variables = {v.path.removeprefix("mixer/"): v for v in layer.weights}
    for name, tensor in reference.state_dict().items():
        array = tensor.numpy()
        if name == "norm.weight":
            path = NORMS[type(layer).__name__]
        elif name.startswith("conv"):
            path = "conv/bias" if name.endswith("bias") else "conv/kernel"
            array = array[:, 0].T if array.ndim == 3 else array
        else:
            path = NAMES.get(name) or name.replace(".weight", "/kernel").replace(".bias", "/bias")
            array = array.T
        variables.pop(path).assign(array)
    assert not variables
    return layer


def difference(reference, layer, padded, length=71):
    """The largest error over real tokens, relative to the largest value."""
    x = np.random.default_rng(3).standard_normal((3, length, WIDTH)).astype("float32")
    mask = ragged_mask(length)[:3] if padded else np.ones((3, length), "int32")
    with torch.no_grad():
        expected = reference(torch.tensor(x), attention_mask=torch.tensor(mask)).numpy()
    run = compiled_on_jax(lambda x, mask: layer(x, attention_mask=mask))
    actual = to_numpy(run(ops.convert_to_tensor(x), ops.convert_to_tensor(mask)))
    return np.abs(actual - expected)[mask != 0].max() / np.abs(expected).max()


@pytest.mark.parametrize(
    "make, bias",
    [
        (short_convolution, False),
        (short_convolution, True),
        (gated_delta, False),
        (state_space, False),
        (state_space, True),
    ],
)
def test_parity(make, bias):
    reference, layer = make(bias)
    reference = randomise_reference(reference)
    layer = with_weights_of(reference, layer)
    # With biases, padding on the left changes what transformers computes for later tokens.
    assert difference(reference, layer, padded=not bias) <= TOLERANCE
    changed = "conv/kernel" if make is short_convolution else "time_steps/A_log"
    variable = next(v for v in layer.weights if v.path == f"mixer/{changed}")
    variable.assign(ops.flip(variable, axis=0))
    assert difference(reference, layer, padded=False) > 50 * TOLERANCE
