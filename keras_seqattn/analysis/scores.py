"""The attention scores that every layer of a model computes."""

import keras
import numpy as np

from keras_seqattn.analysis.inputs import prepare_inputs
from keras_seqattn.errors import InputError
from keras_seqattn.layers.recording import recording


class AttentionScores(dict):
    """Layer path -> scores, float32 (b, h, t, s), in the order in which the layers run.

    Attributes:
        tokens: list of list of str, the pieces of the input_ids of every row, without padding; None
            if the model has no tokenizer.
        decoder_tokens: the same for decoder_input_ids, the queries of a decoder.
        target_tokens: the same for the tokens that the decoder predicts: decoder_tokens without the
            first piece, and then the next piece.
    """

    def __init__(self, scores, tokens=None, decoder_tokens=None, target_tokens=None):
        super().__init__(scores)
        self.tokens = tokens
        self.decoder_tokens = decoder_tokens
        self.target_tokens = target_tokens


def attention(model, inputs, targets=None, **settings):
    """The attention scores of every layer, from one ordinary pass through the model.

    Args:
        model: a `SequenceModel` of any family, or another Keras model with attention layers of
            `keras_seqattn.layers`.
        inputs: a text, a list of texts, or the inputs of the model as a dict of name -> array
            (padded rows need an attention_mask). Texts need the tokenizer in `model.assets`.
        targets: for texts and an encoder-decoder: the text or texts of the decoder. With None the
            model generates them.
        **settings: settings of `keras_seqattn.generate`, if the model generates.

    Returns:
        `AttentionScores`: path of a layer, such as "layers_0/attention" or
        "decoder_layers_1/cross_attention" -> float32 (b, h, t, s). A recurrent decoder has one
        head. Rows of padding have the values that the layer computed there.

    Raises:
        InputError: inputs are missing, texts come without a tokenizer, or no layer has attention.

    Example:
        >>> scores = analysis.attention(model, "a text editor")
        >>> figure = analysis.plot_heads(scores["layers_0/attention"][0], scores.tokens[0])
    """
    prepared = prepare_inputs(model, inputs, targets, settings)
    with recording() as records:
        model(prepared.arrays, training=False)
    if not records:
        raise InputError(
            f"{model.name} has no attention layer of keras_seqattn.layers that could be looked at"
        )
    found = {}
    for layer, scores in records:
        found[_unused(layer.path or layer.name, found)] = _with_heads(scores)
    return AttentionScores(found, prepared.tokens, prepared.decoder_tokens, prepared.target_tokens)


def _unused(path, found):
    """The path; with a number if the same layer attends several times."""
    count = sum(name.split("#")[0] == path for name in found)
    return f"{path}#{count}" if count else path


def _with_heads(scores):
    scores = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(scores, "float32")))
    return scores if scores.ndim == 4 else scores[:, None]
