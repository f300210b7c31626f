"""Sums of tensors of different shapes."""


def add(x, y):
    """`x + y`; not `keras.ops.add`, which on TensorFlow may add along the wrong axis.

    Where y has a single axis above 1 that is as long as the second or the last axis of x, Keras
    takes it for a bias of channels, wherever in y that axis is.

    Args:
        x, y: tensors of one dtype whose shapes broadcast.

    Returns:
        A tensor of that dtype.
    """
    return x + y
