"""The two sides of a comparison: the Keras model and the session of its file."""

import threading
import warnings

import keras
import numpy as np

from keras_seqattn.errors import BundleError, InputError, SeqAttnError
from keras_seqattn.models.compiled import compiled
from keras_seqattn.models.functional import PortModel
from keras_seqattn.onnx.refusals import reason

# Filters of warnings are global in a process. If two threads change them, the last one to finish
# would restore the wrong filters.
_FILTERING = threading.RLock()


def run_keras(model, call, inputs):
    """The result of Keras. A model may refuse inputs with any error.

    Raises:
        InputError: the model raised an error.
    """
    try:
        return without_gradients(call)
    except SeqAttnError:
        raise
    except Exception as error:  # of Keras, of its backend, or of a user's layer
        shapes = ", ".join(f"{name} {x.shape}" for name, x in inputs.items())
        raise InputError(f"Keras cannot run {model.name} on {shapes}: {reason(error)}") from error


def run_session(session, inputs):
    """The outputs of a session by name. The inputs get the types that the session declares."""
    types = {port.name: port.dtype for port in session.ports.inputs}
    # onnxruntime takes texts as objects of Python.
    types = {n: object if kind == "string" else kind for n, kind in types.items()}
    inputs = {n: np.asarray(x).astype(types.get(n, x.dtype), copy=False) for n, x in inputs.items()}
    try:
        values = session.run(None, inputs)
    except Exception as error:  # errors of onnxruntime have no common public base class
        raise BundleError(f"onnxruntime cannot run the file: {reason(error)}") from error
    return dict(zip((o.name for o in session.get_outputs()), values, strict=True))


def model_function(model):
    """A function that calls the model. JAX would compile each operation for each shape. Here it
    compiles the whole model, once for all verifications.
    """
    if keras.backend.backend() != "jax" or not isinstance(model, PortModel):
        return lambda inputs: model(inputs, training=False)
    if not hasattr(model, "_compiled"):
        model._compiled = compiled(model)
    return lambda inputs: model._compiled({}, inputs)


def without_gradients(function):
    """Run Keras only for its numbers: no gradients, and no warning about an axis of length 1."""
    with _FILTERING, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using a softmax over axis")
        if keras.backend.backend() != "torch":
            return function()
        import torch

        with torch.no_grad():
            return function()
