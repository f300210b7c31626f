"""Compiling a functional Keras model as a function of the backend."""

import keras


def compiled(model, finish=lambda outputs: outputs):
    """Compile `finish(model({**carried, **fed}), *rest)`.

    On JAX, the weights are arguments; otherwise JAX would compile them as constants.

    Args:
        model: a functional model whose inputs and outputs are dicts.
        finish: function that is compiled after the model: `(outputs dict, *rest)` -> any structure.

    Returns:
        Callable `(carried, fed, *rest)`. `carried` and `fed` are dicts of input name -> tensor, and
        together they are the inputs of the model. `rest` are the other arguments of `finish`. The
        results may overwrite the tensors of `carried`.
    """

    def call(state, carried, fed, *rest):
        inputs = {**carried, **fed}
        if state is None:
            outputs = model(inputs, training=False)
        else:
            outputs, _ = model.stateless_call(*state, inputs, training=False)
        return finish(outputs, *rest)

    run = _COMPILERS[keras.backend.backend()](call)
    return lambda *arguments: run(_state(model), *arguments)


def _state(model):
    if keras.backend.backend() != "jax":
        return None
    variables = (model.trainable_variables, model.non_trainable_variables)
    return tuple([variable.value for variable in part] for part in variables)


def _compile_jax(call):
    import jax

    return jax.jit(call, donate_argnums=1)


def _compile_tensorflow(call):
    import tensorflow as tf

    return tf.function(call, autograph=False)


def _compile_torch(call):
    import torch

    return torch.no_grad()(call)


_COMPILERS = {"jax": _compile_jax, "tensorflow": _compile_tensorflow, "torch": _compile_torch}
