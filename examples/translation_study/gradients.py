"""How much of the loss at the last target token reaches the first and the last source token.

With n source and n target tokens, the way from the first source token to the last target token is
about 2n steps of a recurrent model, and a constant number of layers of a transformer.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np

from keras_seqattn import models
from keras_seqattn.training.losses import token_losses
from translation_study.fitting import build


def measure_both(family, corpus, settings, folder):
    """What `measure` returns for the model before and after its training."""
    return {
        "untrained": measure(build(family, settings), corpus, settings),
        "trained": measure(models.load(folder / family), corpus, settings),
    }


def measure(model, corpus, settings):
    """Norms of gradients by length, medians over sentences.

    Args:
        model: SequenceModel.
        corpus: Corpus; running text is made of its test pairs.
        settings: Settings.

    Returns:
        dict length -> {"first": float, "last": float}, the norms of the gradient of the last target
        token's loss in the embedding of the first and of the last source token.
    """
    norms = jax.jit(lambda state, *batch: _norms(model, state, *batch))
    state = [
        [variable.value for variable in part]
        for part in (model.trainable_variables, model.non_trainable_variables)
    ]
    found = {}
    for length in settings.gradient_lengths:
        sources, targets = _running_text(corpus, settings.gradient_rows, length)
        first, last = np.median(norms(state, sources, targets), axis=1)
        found[str(length)] = {"first": float(first), "last": float(last)}
    return found


def _running_text(corpus, rows, length):
    """Ids int32 (rows, length) of sources and targets cut out of the test pairs, one after another.

    The first and the last source token of a row are changed to tokens that occur nowhere else in
    its source and target, by which their gradients are known.
    """
    texts = []
    for side in (0, 1):
        encodings = corpus.tokenizer.encode_batch([pair[side] for pair in corpus.split.test])
        ids = np.concatenate([encoding.ids[:-1] for encoding in encodings])
        texts.append(np.resize(ids, (rows, length)).astype("int32"))
    sources, targets = texts
    for source, target in zip(sources, targets, strict=True):
        used = np.concatenate([source, target])
        free = np.setdiff1d(np.arange(4, corpus.tokenizer.vocabulary_size), used)
        source[0], source[-1] = free[len(free) // 3], free[len(free) // 2]
    return sources, targets


def _norms(model, state, sources, targets):
    """float (2, b), the norms for the first and the last source token of every row."""
    embedding, ends = model.get_layer("token_embedding"), sources[:, jnp.array([0, -1])]

    def loss(nudges):
        with _nudged(embedding, ends, nudges):
            inputs = {
                "input_ids": sources,
                "attention_mask": jnp.ones_like(sources),
                "decoder_input_ids": jnp.pad(targets[:, :-1], ((0, 0), (1, 0)), constant_values=1),
            }
            outputs, _ = model.stateless_call(*state, inputs, training=False)
        losses, _ = token_losses(targets[:, -1:], outputs["logits"][:, -1:])
        return jnp.sum(losses)

    gradients = jax.grad(loss)(jnp.zeros((*ends.shape, embedding.hidden_dim)))
    return jnp.transpose(jnp.linalg.norm(gradients, axis=-1))


@contextlib.contextmanager
def _nudged(layer, tokens, nudges):
    """Add nudges (b, k, m), all 0, to the embeddings of the tokens (b, k), wherever they are."""
    call = layer.call

    def nudged_call(inputs, reverse=False):
        result = call(inputs, reverse=reverse)
        if reverse:
            return result
        places = (inputs[:, :, None] == tokens[:, None, :]).astype(result.dtype)
        return result + places @ nudges

    layer.call = nudged_call
    try:
        yield
    finally:
        del layer.call
