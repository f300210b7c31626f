"""A functional Keras model as a function that the backend compiles."""

import keras


def compiled(model, finish=lambda outputs: outputs):
    """Compile `finish(model({**carried, **fed}), *rest)`.

    The weights are arguments on JAX, which would otherwise compile them in as constants.

    Args:
        model: a functional model, dict in and dict out.
        finish: what is compiled behind the model: `(outputs dict, *rest)` -> any structure.

    Returns:
        Callable `(carried, fed, *rest)`: dicts of input name -> tensor, which together are the
        model's inputs, and what `finish` takes besides. The tensors of `carried` may be overwritten
        by the results.
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
