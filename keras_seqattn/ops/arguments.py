"""The valid values of the arguments of operations and layers, one rule for each name.

An argument has the same meaning in every class that has it, so `checked` can look up its rule by
name. A wrong argument is refused when the object is made, not when something fails later.
"""

import functools
import inspect
import numbers

import keras
import numpy as np

from keras_seqattn.arguments import shown

# Larger sizes are refused: no axis of a tensor is that long.
_LARGEST = 2**31 - 1
# Larger numbers, and numbers below its inverse, soon leave the range of float32.
_LARGEST_NUMBER = 1e30
# The activations of `FeedForward` that Keras does not have.
_OWN_ACTIVATIONS = ("gelu_tanh", "quick_gelu")


def checked(init):
    """A decorator for `__init__` that checks arguments by name; None is valid if it is the default.

    Raises:
        ValueError: when the object is made with an argument that is not valid.
    """
    signature = inspect.signature(init)
    parameters = list(signature.parameters.values())[1:]
    names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    optional = {p.name for p in parameters if p.default is None}

    @functools.wraps(init)
    def wrapper(self, *args, **kwargs):
        args = [_plain(*pair) for pair in zip(names, args, strict=False)] + [*args[len(names) :]]
        kwargs = {name: _plain(name, value) for name, value in kwargs.items()}
        for name, value in (*zip(names, args, strict=False), *kwargs.items()):
            rule = RULES.get(name) if name in signature.parameters else None
            if rule is None or (value is None and name in optional):
                continue
            wanted = rule(value)
            if wanted:
                raise ValueError(
                    f"{type(self).__name__}: {name} must be {wanted}"
                    f"{', or None' if name in optional else ''}. "
                    f"Received: {name}={shown(value)}"
                )
        init(self, *args, **kwargs)

    # Keras reads the names of positional arguments here.
    wrapper.__signature__ = signature
    return wrapper


def _plain(name, value):
    """A NumPy number as a Python number, which a configuration can hold; 0 and 1 as flags."""
    if RULES.get(name) is _flag and isinstance(value, int) and value in (0, 1):
        return bool(value)
    return value.item() if isinstance(value, np.bool_ | np.number) else value


# Each rule returns None if the value is valid; otherwise it says what the value must be.


def _whole(least):
    def rule(value):
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_)
        return None if whole and least <= value <= _LARGEST else f"a whole number from {least}"

    return rule


def _number(wanted, fits):
    def rule(value):
        real = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
        # A whole number may be too large for a float.
        most = 2**62 if isinstance(value, numbers.Integral) else _LARGEST_NUMBER
        # A NaN is not below any number, so it is refused.
        return None if real and abs(value) <= most and fits(value) else wanted

    return rule


def _flag(value):
    known = isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1))
    return None if known else "True or False"


def _window(value):
    sides = value if isinstance(value, list | tuple) else ()
    fits = len(sides) == 2 and all(side is None or not _whole(0)(side) for side in sides)
    return None if fits else "(left, right), each 0 or more, or None for unbounded"


def _limits(value):
    ends = value if isinstance(value, list | tuple) else ()
    fits = len(ends) == 2 and not any(map(_positive, ends)) and ends[0] <= ends[1]
    return None if fits else "(least, largest), both above 0"


def _word(value):
    return None if isinstance(value, str) else "a name"


def _initializer(value):
    return _resolved(value, keras.initializers.get, "clone", "an initializer or the name of one")


def _activation(value):
    if value is None or (isinstance(value, str) and value in _OWN_ACTIVATIONS):
        return None
    return _resolved(value, keras.activations.get, "__call__", "an activation or the name of one")


def _resolved(value, get, attribute, wanted):
    if isinstance(value, type) or not (isinstance(value, str | dict) or callable(value)):
        return wanted
    try:
        return None if hasattr(get(value), attribute) else wanted
    except Exception:  # Keras refuses names and configurations with many kinds of errors
        return wanted


def _norm(value):
    kinds = ("layer_norm", "rms_norm", "zero_centered_rms_norm")
    return None if isinstance(value, str) and value in kinds else f"one of {', '.join(kinds)}"


def _positions(value):
    fits = hasattr(value, "rotate") or hasattr(value, "bias")
    return None if fits else "a RotaryPositions or an ALiBi"


def _data_format(value):
    known = ("channels_first", "channels_last")
    return None if isinstance(value, str) and value in known else f"one of {', '.join(known)}"


def _layer(value):
    stored = isinstance(value, dict) and {"class_name", "config"} <= set(value)
    return None if stored or isinstance(value, keras.Layer) else "a layer"


def _settings(value):
    return None if isinstance(value, dict) else "a dict"


def _power_of_two(value):
    return _size(value) or (None if value & (value - 1) == 0 else "a power of two")


_size, _count = _whole(1), _whole(0)
_positive = _number("a number above 0 (1e-30 or more)", lambda x: x >= 1 / _LARGEST_NUMBER)

RULES = {
    **dict.fromkeys(
        """
        attention_units block_size dilation gate_rank head_dim hidden_dim input_dim
        intermediate_dim kernel_size latent_dim max_distance max_global_tokens max_length
        max_position max_sequence_length memory_length num_buckets num_features num_groups num_heads
        num_key_heads num_key_value_heads num_sinks output_dim patch_size pool_size query_latent_dim
        rotary_dim state_dim stride summary units value_dim vocabulary_size
        """.split(),
        _size,
    ),
    **dict.fromkeys("left levels num_random_blocks offset right seed".split(), _count),
    **dict.fromkeys(
        "activation_dropout attention_dropout dropout position_dropout".split(),
        _number("a rate from 0 to below 1", lambda x: 0 <= x < 1),
    ),
    **dict.fromkeys("base gate_temperature softcap".split(), _positive),
    **dict.fromkeys(
        "epsilon layer_norm_epsilon".split(), _number("a number from 0", lambda x: x >= 0)
    ),
    **dict.fromkeys("factor scale".split(), _number("a finite number", lambda x: True)),
    "fraction": _number("a number above 0, up to 1", lambda x: 0 < x <= 1),
    **dict.fromkeys(
        """
        bidirectional causal class_token cross_attention gated interleaved normalize_first
        output_gate return_scores same_length sinks tied unbounded use_bias use_conv_bias
        use_feed_forward_bias use_output_bias
        """.split(),
        _flag,
    ),
    "clamp_distance": _number("a distance above 0", lambda x: 0 < x <= _LARGEST),
    "chunk_size": _power_of_two,
    "window": _window,
    "time_step_limit": _limits,
    **dict.fromkeys("feature_map mode score shared".split(), _word),
    **dict.fromkeys(
        """
        bias_initializer embeddings_initializer kernel_initializer recurrent_initializer
        """.split(),
        _initializer,
    ),
    "activation": _activation,
    **dict.fromkeys("key_norm norm query_norm".split(), _norm),
    "data_format": _data_format,
    "positions": _positions,
    **dict.fromkeys("attention feed_forward mixer".split(), _layer),
    "scaling": _settings,
}
