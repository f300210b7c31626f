"""What is refused on purpose: public names of keras.ops and keras.layers, and why."""

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
