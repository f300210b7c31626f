"""What every skeleton does with functional models: token inputs, and layers found again by name."""

import keras


def token_inputs(*names):
    """Symbolic int32 inputs (b, t), by name."""
    return {name: keras.Input((None,), dtype="int32", name=name) for name in names}


def inputs_like(tensors):
    """Symbolic inputs of the same names, shapes and dtypes as some others, a dict."""
    return {
        name: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=name)
        for name, x in tensors.items()
    }


def named_layers(model):
    """The layers of a functional model, by name."""
    return {layer.name: layer for layer in model.layers}


def numbered_layers(layers, prefix):
    """Those named `{prefix}0`, `{prefix}1` and so on among named layers, in order."""
    count = sum(name.startswith(prefix) for name in layers)
    return [layers[f"{prefix}{index}"] for index in range(count)]


def apply_layers(layers, names, x):
    """`x` through those of the named layers that a model has, one after the other.

    Args:
        layers: dict of the layers by name.
        names: of the layers.
        x: a tensor.
    """
    for name in names:
        x = layers[name](x) if name in layers else x
    return x
