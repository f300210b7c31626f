"""Small convolutional networks as people build them, for the tests of their files."""

import keras
from keras import layers


def residual(channels=8, data_format="channels_last"):
    """A residual network with a squeeze, a downsampling, and a classifier."""
    axis = -1 if data_format == "channels_last" else 1
    form = {"data_format": data_format}

    def block(x, filters, strides):
        y = layers.ZeroPadding2D(1, **form)(x)
        y = layers.Conv2D(filters, 3, strides=strides, use_bias=False, **form)(y)
        y = layers.ReLU()(layers.BatchNormalization(axis=axis)(y))
        y = layers.DepthwiseConv2D(3, padding="same", **form)(y)
        y = layers.Activation("silu")(layers.BatchNormalization(axis=axis)(y))
        squeezed = layers.GlobalAveragePooling2D(**form)(y)
        shape = (1, 1, filters) if axis == -1 else (filters, 1, 1)
        gate = layers.Reshape(shape)(squeezed)
        gate = layers.Conv2D(2, 1, activation="relu", **form)(gate)
        gate = layers.Conv2D(filters, 1, activation="sigmoid", **form)(gate)
        y = layers.Multiply()([y, gate])
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, **form)(x)
            x = layers.BatchNormalization(axis=axis)(x)
        return layers.Activation("relu")(layers.Add()([x, y]))

    shape = (None, None, 3) if axis == -1 else (3, None, None)
    inputs = keras.Input(shape, name="pixels")
    x = layers.Rescaling(1 / 64, offset=-2.0)(inputs)
    x = layers.Conv2D(channels, 3, strides=2, padding="same", activation="relu", **form)(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", **form)(x)
    x = block(block(x, channels, 1), channels + 3, 2)
    x = layers.GlobalAveragePooling2D(**form)(x)
    x = layers.BatchNormalization()(layers.Dense(7)(x))
    return keras.Model(inputs, layers.Dense(5, activation="softmax", name="classes")(x))


def u_net(filters=4):
    """An encoder and a decoder of pictures, joined at each scale."""
    inputs = keras.Input((None, None, 3), name="pixels")

    def two(x, n):
        for _ in range(2):
            x = layers.Conv2D(n, 3, padding="same", use_bias=False)(x)
            x = layers.LeakyReLU()(layers.BatchNormalization()(x))
        return x

    skips, x = [], inputs
    for scale in range(2):
        x = two(x, filters << scale)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = two(x, filters << 2)
    for scale in (1, 0):
        if scale:
            x = layers.Conv2DTranspose(filters << scale, 2, strides=2, padding="same")(x)
        else:
            x = layers.UpSampling2D()(x)
        x = two(layers.Concatenate()([skips[scale], x]), filters << scale)
    return keras.Model(inputs, layers.Conv2D(1, 1, name="logits")(x))
