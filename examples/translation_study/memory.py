"""Memory of a training step by length, as XLA plans it.

What the compiler allots to the intermediate results of the loss and its gradients. Weights, the
state of the optimizer and the batch are not in it. The peak of a process, the other way to look,
also holds what the allocator keeps, which at these sizes is most of it.
"""

import jax
import jax.numpy as jnp

from keras_seqattn.training.losses import token_losses
from translation_study.fitting import build
from translation_study.throughput import random_batch


def measure(family, settings):
    """MiB that a training step of `settings.memory_rows` pairs needs, for every length.

    Args:
        family: str.
        settings: Settings.

    Returns:
        dict length -> MiB.
    """
    model = build(family, settings)
    return {str(length): _planned(model, settings, length) for length in settings.memory_lengths}


def _planned(model, settings, length):
    inputs, labels = random_batch(settings.vocabulary_size, settings.memory_rows, length)

    def loss(trainable, fixed, inputs, labels):
        outputs, _ = model.stateless_call(trainable, fixed, inputs, training=True)
        losses, _ = token_losses(labels, outputs["logits"])
        return jnp.sum(losses)

    state = (
        [variable.value for variable in part]
        for part in (model.trainable_variables, model.non_trainable_variables)
    )
    step = jax.jit(jax.grad(loss)).lower(*state, inputs, labels["logits"]).compile()
    return step.memory_analysis().temp_size_in_bytes / 2**20
