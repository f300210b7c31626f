"""One layer as a Keras model and as ONNX files.

Usage: python -m attention_study.exported FOLDER HEADS SIZE LONGEST NAME..., which writes a file for
each target and name.
"""

import pathlib
import sys

from attention_study.engines import TARGETS
from attention_study.mechanisms import MECHANISMS, attention_layer
from attention_study.settings import HEAD_DIM


def model(name, num_heads, size, max_length):
    """A functional model of one layer, from x float (b, t, m) and its masks to float (b, t, m).

    Args:
        name: str, of MECHANISMS.
        num_heads, size, max_length: as in `Sizes`.
    """
    import keras

    keras.utils.set_random_seed(1)
    entry = MECHANISMS[name]
    x = keras.Input((None, num_heads * HEAD_DIM), name="x")
    masks = {mask: keras.Input((None,), dtype="int32", name=mask) for mask in entry.inputs}
    layer = attention_layer(name, num_heads, size, max_length)
    return keras.Model({"x": x, **masks}, layer(x, **masks), name=name)


def file_name(name, num_heads, target):
    """The name of the file of a layer for a target."""
    return f"{name}-{num_heads}-{target}.onnx"


def main(folder, *arguments):
    from keras_seqattn.onnx import build_graph, write_onnx

    sizes, names = [int(number) for number in arguments[:3]], arguments[3:]
    for name in names:
        for target in TARGETS.values():
            path = pathlib.Path(folder) / file_name(name, sizes[0], target)
            try:
                built = model(name, *sizes)
                write_onnx(build_graph(built, target), path, inline=True)
            except Exception as error:  # one mechanism's failure leaves the others their files
                print(f"{name}, {target}: {type(error).__name__}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main(*sys.argv[1:])
