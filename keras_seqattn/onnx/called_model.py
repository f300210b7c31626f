"""A Keras model of any kind with declared inputs: it takes a dict of tensors and returns one."""

import warnings

import keras

from keras_seqattn.errors import ExportError
from keras_seqattn.models.functional import PortModel
from keras_seqattn.onnx import keras_internals
from keras_seqattn.onnx.refusals import reason
from keras_seqattn.onnx.signature import Signature, built_signature, given_signature
from keras_seqattn.onnx.structures import joined, leaves

_HOW = (
    "call it once on data, or give input_signature=, one keras.InputSpec for each argument of its "
    'call, such as [keras.InputSpec(shape=(None, 16), dtype="int32", name="tokens")]'
)


class CalledModel(keras.Model):
    """Calls another model.

    Args:
        model: the keras.Model.
        signature: `Signature` of its call.

    Attributes:
        inner: the model.
        signature: the signature.
        is_guessed: whether the types in the signature are not known.
    """

    def __init__(self, model, signature, is_guessed=False):
        # The model itself decides which inputs it casts.
        super().__init__(name=model.name, autocast=False)
        self.inner, self.signature, self.is_guessed = model, signature, is_guessed
        self.built = True

    @property
    def input(self):
        """dict of name -> symbolic input."""
        return dict(self.signature.tensors)

    def call(self, inputs):
        args, kwargs = self.signature.bound(inputs)
        outputs = self.inner(*args, **kwargs)
        found = {path: x for path, x in leaves(outputs) if x is not None}
        return {self._output_name(path, outputs): x for path, x in found.items()}

    def use_integers(self, names):
        """Set the types that were not known: int32 for the inputs with these names."""
        if self.is_guessed and names:
            self.signature = self.signature.with_integers(self.inner, names)
        self.is_guessed = False

    def _output_name(self, path, outputs):
        if not path:
            layers = self.inner.layers
            chain = isinstance(self.inner, keras.Sequential) and layers
            return layers[-1].name if chain else "output_0"
        return joined(path) if isinstance(path[0], str) else f"output_{joined(path)}"


def with_inputs(model, input_signature=None):
    """The model itself if it is functional, else a `CalledModel`.

    The arguments of a model are those of its first call, if it was symbolic, or of its build.

    Args:
        model: a keras.Model.
        input_signature: as for `export`.

    Raises:
        ExportError: the inputs are not known, or Keras cannot call the model on them.
    """
    if input_signature is not None:
        return _built(CalledModel(model, given_signature(model, input_signature)))
    if isinstance(model, CalledModel | PortModel) or keras_internals.is_functional(model):
        return model
    if isinstance(model, keras.Sequential):
        return CalledModel(model, _of_chain(model))
    called = keras_internals.first_call(model)
    if called is not None:
        return CalledModel(model, Signature(model, *called))
    signature = built_signature(model) if model.built else None
    if signature is None:
        raise _unknown(model)
    left_out = signature.left_out(model)
    if left_out:
        warnings.warn(
            f"the file of {model.name} does not take {', '.join(left_out)}: Keras keeps the shapes "
            "only of what build takes. Give input_signature= for a file that takes all arguments",
            stacklevel=3,
        )
    return _built(CalledModel(model, signature, is_guessed=True))


def _built(model):
    """The model, whose layers all have their weights. A trace would not know how to make them."""
    if all(layer.built for layer in keras_internals.all_layers(model.inner)):
        return model
    try:
        model(model.input)
    except Exception as error:  # the code of the model may raise any error
        shapes = ", ".join(f"{n} {x.shape} {x.dtype}" for n, x in model.input.items())
        raise ExportError(
            f"Keras cannot call {model.name} on {shapes}: {reason(error)}. If these are not its "
            f"inputs, {_HOW}"
        ) from error
    return model


def _of_chain(model):
    """The signature of a Sequential model. A batch size that data gave is no part of the model."""
    if not model.built or not getattr(model, "inputs", None):
        raise _unknown(model)
    (first,) = model.inputs
    stateful = any(getattr(x, "stateful", False) for x in keras_internals.all_layers(model))
    batch = first.shape[0] if stateful else None
    tensor = keras.KerasTensor((batch, *first.shape[1:]), first.dtype, name=first.name)
    return Signature(model, (tensor,), {})


def _unknown(model):
    return ExportError(f"the inputs of {model.name} are not known: {_HOW}")
