"""Cases of keras.layers: for each class, layers and the inputs that they are called with."""

import keras
import numpy as np
from keras import layers

_NONE = {}


def _at(inputs, *settings, call=None):
    """(inputs, settings of a layer, call) for each of some settings.

    Args:
        inputs: str, names between spaces. Several are given to the layer as a list.
        settings: dicts.
        call: None, or function of (layer, tensors...), if the layer is called in another way.
    """
    return [(inputs, chosen, call) for chosen in settings or (_NONE,)]


_FIRST = {"data_format": "channels_first"}
_SAME, _CAUSAL = {"padding": "same"}, {"padding": "causal"}


def _convolutions(inputs, size, causal=False):
    """The usual forms of a convolution."""
    chosen = [{}, _SAME, _SAME | {"strides": 2}, {"activation": "relu", "use_bias": False}]
    chosen += [_SAME | {"dilation_rate": 2}]
    chosen += [_CAUSAL, _CAUSAL | {"dilation_rate": 2}] if causal else []
    return _at(inputs, *[{"filters": 6, "kernel_size": size} | more for more in chosen])


def _transposed(inputs, size):
    chosen = [{}, {"strides": 2}, _SAME | {"strides": 2}, _SAME | {"strides": 3}]
    return _at(inputs, *[{"filters": 5, "kernel_size": size} | more for more in chosen])


def _depthwise(inputs, size):
    chosen = [{}, _SAME | {"strides": 2}, _SAME | {"depth_multiplier": 2}]
    return _at(inputs, *[{"kernel_size": size} | more for more in chosen])


def _separable(inputs, size):
    chosen = [{}, _SAME | {"strides": 2}, _SAME | {"depth_multiplier": 2}]
    return _at(inputs, *[{"filters": 6, "kernel_size": size} | more for more in chosen])


def _pools(inputs, size):
    chosen = [{}, _SAME, {"strides": 1}, _SAME | {"strides": 3}]
    return _at(inputs, *[{"pool_size": size} | more for more in chosen])


_GLOBAL = [{}, {"keepdims": True}]
_PLANES = _FIRST | {"filters": 6, "kernel_size": 3}
_STATES = {"return_sequences": True, "return_state": True}
_ROWS = [{}, {"return_sequences": True}, _STATES, {"go_backwards": True, "activation": "relu"}]


def _recurrent(units, *more):
    return _at("x", *[{"units": units} | chosen for chosen in (*_ROWS, *more)])


class _Cell(layers.Layer):
    """A recurrent cell of a user."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], self.units), name="kernel")
        self.recurrent = self.add_weight((self.units, self.units), name="recurrent")

    def call(self, x, states):
        y = keras.ops.sin(keras.ops.matmul(x, self.kernel) + states[0] @ self.recurrent)
        return y, [y]


def _bidirectional(cell, **settings):
    return {"layer": lambda: getattr(layers, cell)(4, **settings)}


_HEADS = {"num_heads": 2, "key_dim": 5}


_LOOKUP = {"vocabulary": [3, 1, 7, -2]}

LAYERS = {
    "Activation": _at(
        "x",
        *[
            {"activation": name}
            for name in (
                "relu relu6 leaky_relu elu selu celu gelu silu hard_sigmoid hard_silu"
                " hard_tanh sigmoid tanh tanh_shrink softplus softsign exponential linear softmax"
                " log_softmax log_sigmoid mish squareplus soft_shrink hard_shrink sparse_plus"
                " sparse_sigmoid"
            ).split()
        ],
    ),
    "ActivityRegularization": _at("x", {"l1": 0.1}),
    "AdaptiveAveragePooling1D": _at("line", {"output_size": 4}),
    "AdaptiveAveragePooling2D": _at("plane", {"output_size": 2})
    + _at("fixed", {"output_size": (3, 5)}),
    "AdaptiveAveragePooling3D": _at("film", {"output_size": (1, 2, 3)}),
    "AdaptiveMaxPooling1D": _at("line", {"output_size": 4}),
    "AdaptiveMaxPooling2D": _at("plane", {"output_size": 2})
    + _at("fixed", {"output_size": (3, 5)}),
    "AdaptiveMaxPooling3D": _at("film", {"output_size": (1, 2, 3)}),
    "Add": _at("x y") + _at("x y p"),
    "Average": _at("x y p"),
    "Maximum": _at("x y"),
    "Minimum": _at("x y"),
    "Multiply": _at("x y p"),
    "Subtract": _at("x y"),
    "Concatenate": _at("x y") + _at("x z", {"axis": 1}),
    "Dot": _at("x y", {"axes": 2}, {"axes": -1, "normalize": True}) + _at("x z", {"axes": 2}),
    "AdditiveAttention": _at("x z") + _at("x y"),
    "AlphaDropout": _at("x", {"rate": 0.3}),
    "Dropout": _at("x", {"rate": 0.3}),
    "GaussianDropout": _at("x", {"rate": 0.3}),
    "GaussianNoise": _at("x", {"stddev": 0.3}),
    "SpatialDropout1D": _at("x", {"rate": 0.3}),
    "SpatialDropout2D": _at("plane", {"rate": 0.3}),
    "SpatialDropout3D": _at("film", {"rate": 0.3}),
    "Attention": _at("x z", {}, {"use_scale": True}, {"score_mode": "concat"})
    + _at(
        "x y",
        {},
        call=lambda layer, x, y: layer([x, y], use_causal_mask=True, return_attention_scores=True),
    ),
    "AveragePooling1D": _pools("line", 3),
    "AveragePooling2D": _pools("plane", (2, 3)) + _at("planes", _FIRST | {"pool_size": 2}),
    "AveragePooling3D": _at(
        "film", {"pool_size": (1, 2, 3)}, _SAME | {"pool_size": 2, "strides": 1}
    ),
    "MaxPooling1D": _pools("line", 3),
    "MaxPooling2D": _pools("plane", (2, 3)) + _at("planes", _FIRST | {"pool_size": 2}),
    "MaxPooling3D": _at("film", {"pool_size": (1, 2, 3)}, _SAME | {"pool_size": 2, "strides": 1}),
    "GlobalAveragePooling1D": _at("x", *_GLOBAL, _FIRST),
    "GlobalAveragePooling2D": _at("plane", *_GLOBAL),
    "GlobalAveragePooling3D": _at("film", *_GLOBAL),
    "GlobalMaxPooling1D": _at("x", *_GLOBAL, _FIRST),
    "GlobalMaxPooling2D": _at("plane", *_GLOBAL) + _at("planes", _FIRST),
    "GlobalMaxPooling3D": _at("film", *_GLOBAL),
    "BatchNormalization": _at("x", {}, {"scale": False, "center": False})
    + _at("planes", {"axis": 1})
    + _at("plane"),
    "GroupNormalization": _at("plane", {"groups": 2}, {"groups": -1})
    + _at("planes", {"groups": 2, "axis": 1}),
    "LayerNormalization": _at("x", {}, {"center": False}) + _at("fixed", {"axis": (2, 3)}),
    "RMSNormalization": _at("x"),
    "UnitNormalization": _at("x", {}, {"axis": (1, 2)}),
    "SpectralNormalization": _at("x", {"layer": lambda: layers.Dense(4)}),
    "Normalization": _at(
        "x",
        {"mean": np.arange(7.0), "variance": np.arange(1.0, 8)},
        {"mean": 2.0, "variance": 3.0, "axis": None, "invert": True},
    ),
    "Bidirectional": _at(
        "x",
        _bidirectional("LSTM"),
        _bidirectional("GRU", return_sequences=True) | {"merge_mode": "sum"},
        _bidirectional("SimpleRNN", return_state=True) | {"merge_mode": None},
        _bidirectional("LSTM", return_sequences=True) | {"merge_mode": "ave"},
    ),
    "LSTM": _recurrent(
        4, {"unroll": False, "use_bias": False}, {"recurrent_activation": "hard_sigmoid"}
    ),
    "GRU": _recurrent(4, {"reset_after": False}, {"use_bias": False}),
    "SimpleRNN": _recurrent(4),
    "RNN": _at(
        "x",
        {"cell": lambda: _Cell(5)},
        {"cell": lambda: _Cell(5)} | _STATES,
        {"cell": lambda: [layers.LSTMCell(3), layers.GRUCell(5)]},
    ),
    "LSTMCell": _at("x", {"units": 7}, call=lambda layer, x: layer(x[:, 0], [x[:, 0], x[:, -1]])),
    "GRUCell": _at("x", {"units": 7}, call=lambda layer, x: layer(x[:, 0], [x[:, -1]])),
    "SimpleRNNCell": _at("x", {"units": 7}, call=lambda layer, x: layer(x[:, 0], [x[:, -1]])),
    "StackedRNNCells": _at(
        "x",
        {"cells": lambda: [layers.GRUCell(7), layers.SimpleRNNCell(7)]},
        call=lambda layer, x: layer(x[:, 0], [x[:, 0], x[:, -1]]),
    ),
    "ConvLSTM1D": _at(
        "fixed",
        {"filters": 3, "kernel_size": 3},
        _SAME | {"filters": 3, "kernel_size": 3, "return_sequences": True},
    ),
    "ConvLSTM2D": _at(
        "clip",
        {"filters": 3, "kernel_size": (2, 3)},
        _SAME | {"filters": 3, "kernel_size": 3} | _STATES,
    ),
    "ConvLSTM3D": _at(
        "clip",
        _SAME | {"filters": 2, "kernel_size": 2},
        call=lambda layer, clip: layer(clip[..., None]),
    ),
    "TimeDistributed": _at("x", {"layer": lambda: layers.Dense(4)})
    + _at("film", {"layer": lambda: layers.Conv2D(3, 3)}),
    "CategoryEncoding": _at("ids", {"num_tokens": 6}, {"num_tokens": 6, "output_mode": "count"})
    + _at("rows", {"num_tokens": 6, "output_mode": "one_hot"}),
    "Discretization": _at(
        "x",
        {"bin_boundaries": [-1.0, 0.0, 0.4]},
        {"bin_boundaries": [-1.0, 0.4], "output_mode": "one_hot"},
    ),
    "Hashing": _at("ids", {"num_bins": 5}, {"num_bins": 7, "salt": 3}),
    "HashedCrossing": _at(
        "rows vi", {"num_bins": 5}, call=lambda layer, rows, vi: layer((rows, rows * 3))
    ),
    "IntegerLookup": _at(
        "ids", _LOOKUP, _LOOKUP | {"mask_token": 0}, _LOOKUP | {"output_mode": "multi_hot"}
    ),
    "CenterCrop": _at("image", {"height": 4, "width": 3}),
    "Rescaling": _at("image", {"scale": 2.0, "offset": -1.0}),
    "Resizing": _at(
        "image",
        {"height": 5, "width": 7},
        {"height": 5, "width": 7, "interpolation": "nearest"},
        {"height": 9, "width": 6, "crop_to_aspect_ratio": True},
        {"height": 4, "width": 7, "interpolation": "bicubic"},
    ),
    "UpSampling1D": _at("line", {"size": 3}),
    "UpSampling3D": _at("film", {"size": (1, 2, 3)}),
    "UpSampling2D": _at(
        "plane", {}, {"size": (2, 3), "interpolation": "bilinear"}, {"interpolation": "bicubic"}
    )
    + _at("planes", _FIRST),
    "MelSpectrogram": _at(
        "sound",
        {
            "fft_length": 16,
            "sequence_stride": 8,
            "num_mel_bins": 5,
            "sampling_rate": 100,
            "min_freq": 1.0,
        },
    ),
    "STFTSpectrogram": _at(
        "line",
        {"frame_length": 12, "frame_step": 5, "fft_length": 16},
        {
            "frame_length": 16,
            "frame_step": 8,
            "fft_length": 16,
            "mode": "magnitude",
            "padding": "same",
        },
    ),
    **{
        f"Conv{n}D": _convolutions(where, 3 if n < 3 else (1, 2, 3), causal=n == 1)
        for n, where in ((1, "line"), (2, "plane"), (3, "film"))
    },
    **{
        f"Conv{n}DTranspose": _transposed(where, 3 if n < 3 else 2)
        for n, where in ((1, "line"), (2, "plane"), (3, "film"))
    },
    "DepthwiseConv1D": _depthwise("line", 3),
    "DepthwiseConv2D": _depthwise("plane", (3, 2)),
    "SeparableConv1D": _separable("line", 3),
    "SeparableConv2D": _separable("plane", (3, 2)),
    "Cropping1D": _at("line", {"cropping": (1, 2)}),
    "Cropping2D": _at("plane", {"cropping": ((1, 2), (0, 1))})
    + _at("planes", _FIRST | {"cropping": 1}),
    "Cropping3D": _at("film", {"cropping": ((0, 0), (1, 2), (2, 1))}),
    "ZeroPadding1D": _at("x", {"padding": (1, 2)}),
    "ZeroPadding2D": _at("plane", {"padding": ((1, 2), (0, 1))})
    + _at("planes", _FIRST | {"padding": 2}),
    "ZeroPadding3D": _at("film", {"padding": 1}),
    "Dense": _at("x", {"units": 4}, {"units": 3, "activation": "mish"})
    + _at("plane", {"units": 5, "use_bias": False}),
    "EinsumDense": _at(
        "x",
        {"equation": "abc,cd->abd", "output_shape": (None, 6), "bias_axes": "d"},
        {"equation": "abc,cde->abde", "output_shape": (None, 3, 5)},
    ),
    "Embedding": _at(
        "ids",
        {"input_dim": 5, "output_dim": 3},
        {"input_dim": 5, "output_dim": 3, "mask_zero": True},
    ),
    "ReversibleEmbedding": _at("ids", {"input_dim": 5, "output_dim": 7})
    + _at(
        "x ids",
        {"input_dim": 5, "output_dim": 7},
        call=lambda layer, x, ids: layer(x + layer(ids), reverse=True),
    ),
    "ELU": _at("x", {"alpha": 0.5}),
    "LeakyReLU": _at("x", {"negative_slope": 0.2}),
    "PReLU": _at("x", {"shared_axes": [1]}),
    "ReLU": _at("x", {}, {"max_value": 1.0, "negative_slope": 0.1, "threshold": 0.3}),
    "Softmax": _at("x", {}, {"axis": 1}, {"axis": (1, 2)}),
    "Flatten": _at("fixed", {}, _FIRST),
    "Identity": _at("x"),
    "Lambda": _at("x", {"function": lambda x: x * 2 + 1}),
    "Masking": _at("x", {"mask_value": 0.0}),
    "Permute": _at("x", {"dims": (2, 1)}) + _at("plane", {"dims": (3, 1, 2)}),
    "RepeatVector": _at("x", {"n": 3}, call=lambda layer, x: layer(x[:, 0])),
    "Reshape": _at("fixed", {"target_shape": (4, -1)}, {"target_shape": (8, 6, 8)}),
    "GroupQueryAttention": _at(
        "x z",
        {"head_dim": 4, "num_query_heads": 4, "num_key_value_heads": 2},
        call=lambda layer, x, z: layer(x, z),
    ),
    "MultiHeadAttention": _at(
        "x z",
        _HEADS,
        _HEADS | {"value_dim": 5, "output_shape": 6, "use_bias": False},
        call=lambda layer, x, z: layer(x, z),
    )
    + _at(
        "x",
        _HEADS,
        call=lambda layer, x: layer(x, x, use_causal_mask=True, return_attention_scores=True),
    ),
    **{
        name: _at("image", settings)
        for name, settings in {
            "AugMix": {},
            "AutoContrast": {},
            "ContrastLimitedAdaptiveHistogramEqualization": {},
            "Equalization": {},
            "RandAugment": {},
            "RandomBrightness": {"factor": 0.2},
            "RandomColorDegeneration": {"factor": 0.2},
            "RandomColorJitter": {},
            "RandomContrast": {"factor": 0.2},
            "RandomElasticTransform": {},
            "RandomErasing": {},
            "RandomFlip": {},
            "RandomGaussianBlur": {},
            "RandomGrayscale": {},
            "RandomHue": {"factor": 0.2},
            "RandomInvert": {},
            "RandomPerspective": {},
            "RandomPosterization": {"factor": 4},
            "RandomRotation": {"factor": 0.2},
            "RandomSaturation": {"factor": 0.2},
            "RandomSharpness": {"factor": 0.2},
            "RandomShear": {"x_factor": 0.2},
            "RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2},
            "RandomZoom": {"height_factor": 0.2},
            "Solarization": {"value_range": (0, 1), "threshold_factor": (0.5, 0.5)},
            "CutMix": {},
            "MixUp": {},
            "Pipeline": {"layers": lambda: [layers.Rescaling(2.0), layers.RandomFlip()]},
        }.items()
    },
    "RandomCrop": _at("still", {"height": 4, "width": 3}),
}
