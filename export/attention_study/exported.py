"""One layer as a Keras model and as ONNX files.

Usage: python -m attention_study.exported FOLDER SIZE LONGEST NAME..., which writes a file for each
target and name.
"""

import pathlib
import sys

from attention_study.engines import TARGETS
from attention_study.mechanisms import MECHANISMS, attention_layer
from attention_study.settings import HEAD_DIM, HEADS


def model(name, size, max_length):
    """A functional model of one layer, from x float (b, t, m) and its masks to float (b, t, m).

    Args:
        name: str, of MECHANISMS.
        size, max_length: as in `Sizes`.
    """
    import keras

    keras.utils.set_random_seed(1)
    entry = MECHANISMS[name]
    x = keras.Input((None, HEADS * HEAD_DIM), name="x")
    masks = {mask: keras.Input((None,), dtype="int32", name=mask) for mask in entry.inputs}
    layer = attention_layer(name, size, max_length)
    return keras.Model({"x": x, **masks}, layer(x, **masks), name=name)


def file_name(name, target):
    """The name of the file of a mechanism for a target."""
    return f"{name}-{target}.onnx"


def main(folder, size, max_length, *names):
    from keras_seqattn.onnx import build_graph, write_onnx

    for name in names:
        for target in TARGETS.values():
            path = pathlib.Path(folder) / file_name(name, target)
            try:
                built = model(name, int(size), int(max_length))
                write_onnx(build_graph(built, target), path, inline=True)
            except Exception as error:  # one mechanism's failure leaves the others their files
                print(f"{name}, {target}: {type(error).__name__}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
