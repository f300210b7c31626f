"""What is refused on purpose: public names of keras.ops and keras.layers, and why."""

import keras

# Functions of keras.ops that give no tensor.
NO_TENSORS = {"convert_to_numpy", "dtype", "is_tensor"}

# Classes of keras.layers that are no layers of their own, or that are code of one backend.
NO_LAYERS = {
    "InputLayer": "keras.Input makes it",
    "Layer": "it is the base class of the layers of users",
    "Wrapper": "it is the base class of wrappers",
    "FlaxLayer": "it is code of JAX; its own exporters write it",
    "JaxLayer": "it is code of JAX; its own exporters write it",
    "TFSMLayer": "it is a saved program of TensorFlow, which tf2onnx can convert",
    "TorchModuleWrapper": "it is code of PyTorch; torch.onnx can export it",
    "MaxNumBoundingBoxes": "it pads lists of boxes in a pipeline of training data",
    "StringLookup": "text becomes numbers before the model: cut the model after it",
    "TextVectorization": "text becomes numbers before the model: cut the model after it",
}

# Every case of these is refused, on every backend that has it.
OPS = {
    "ctc_decode": "ONNX has no decoder of CTC; decode the outputs of the file with NumPy",
    "ctc_loss": "a loss of training; a loop over targets has no use at inference",
    "eig": "eigenvalues of general matrices are complex, and ONNX has no form for them",
    "jvp": "a derivative; ONNX has no automatic differentiation",
    "polar": "it makes complex numbers, which no tensor of onnxruntime holds",
    "view_as_complex": "it makes complex numbers, which no tensor of onnxruntime holds",
    "view_as_real": "it takes complex numbers, which no tensor of onnxruntime holds",
}
LAYERS = {}
# Single cases that are refused although others of the same name are not.
CASES = {
    "HashedCrossing:0": "the hash of Keras of several inputs joins them as text",
    "Hashing:1": "a hash with a salt is another function",
    "view:0": "the bits of numbers, for which ONNX has no operator",
    "vectorize:0": "it uses the vectorisation of its backend; write the loop with ops.map",
    "image.elastic_transform:0": "its displacements are random; no file could repeat them",
    "adaptive_average_pool:1": "windows of a size that is known only at run time",
    "adaptive_average_pool:2": "windows of a size that is known only at run time",
    "adaptive_max_pool:1": "windows of a size that is known only at run time",
    "adaptive_max_pool:2": "windows of a size that is known only at run time",
    "AdaptiveAveragePooling1D:0": "windows of a size that is known only at run time",
    "AdaptiveAveragePooling2D:0": "windows of a size that is known only at run time",
    "AdaptiveAveragePooling3D:0": "windows of a size that is known only at run time",
    "AdaptiveMaxPooling1D:0": "windows of a size that is known only at run time",
    "AdaptiveMaxPooling2D:0": "windows of a size that is known only at run time",
    "AdaptiveMaxPooling3D:0": "windows of a size that is known only at run time",
}


def is_refused(name):
    """Whether the case `name:number` is refused on purpose."""
    function = name.split(":")[0]
    return name in CASES or function in OPS or function in LAYERS


_NAN = "onnxruntime leaves NaN out of maxima and minima"
_WRAPS = "a product of many integers leaves int64, and each library wraps in another place"
_KERAS = "Keras has a fault on this backend: "
# Cases in which the file gives something else than Keras, and why. The file is right, or the
# difference needs numbers that no model gives.
DIFFERENT = {
    **dict.fromkeys(
        "max:8 max:9 min:8 min:9 amax:8 amax:9 amin:8 amin:9 ptp:6 ptp:7".split(), _NAN
    ),
    **dict.fromkeys("logsumexp:6 nanpercentile:5 nanstd:9 nanvar:9".split(), _NAN),
    **dict.fromkeys("prod:4 nanprod:4".split(), _WRAPS),
    "nancumprod:0": "of infinities and NaN together",
    "nancumsum:0": "of infinities and NaN together",
    "nancumsum:1": "of infinities and NaN together",
    "nextafter:2": "the neighbours of infinity",
    "sign:1": "the sign of NaN is 0 in some backends, and NaN in the file",
    "floor_divide:3": "infinity divided",
    "softmax:1": "of rows with infinities",
    "sparsemax:1": "of rows with infinities",
    "saturate_cast:0": "numbers beyond a type, of which each backend makes something else",
    "cast:7": "a target without bfloat16 computes it in float32",
    "clip:3": _KERAS + "integers between bounds that are no integers",
    "correlate:0": _KERAS + "the result of five and three numbers has no axis",
    "count_nonzero:2": _KERAS + "the axes of the result change places",
    "cross:0": _KERAS + "if the batch has three rows, it takes them for the vectors",
    "image.gaussian_blur:0": _KERAS + "a picture loses two of its channels",
    "argpartition:0": _KERAS + "the place is not that of the number in the sorted row",
    "relu6:2": _KERAS + "integers may stay integers",
}
if keras.backend.backend() == "tensorflow":
    _SHIFTS = "bitwise_left_shift:2 bitwise_right_shift:2 left_shift:2 right_shift:2".split()
    DIFFERENT |= {
        **dict.fromkeys(_SHIFTS, "bools shifted by bools"),
        **dict.fromkeys(["sort:3", "argsort:4"], "NaN is in other places of the sorted row"),
        "vstack:1": _KERAS + "vectors are joined to a vector",
        "eye:1": _KERAS + "a diagonal above the main one makes the matrix larger",
        "rot90:1": _KERAS + "two turns of a matrix that is not square",
        "unravel_index:0": "of positions beyond the shape",
    }
