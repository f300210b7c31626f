"""From texts as token ids to the inputs and the labels of a model."""

import numpy as np

from keras_seqattn.errors import InputError
from keras_seqattn.training.checks import token_id, token_ids

IGNORED = -100


def shift_right(labels, decoder_start_token_id, pad_token_id):
    """The input of the decoder for teacher forcing: the start token, then the labels, one later.

    Args:
        labels: int (b, t); a label of -100 is not learnt.
        decoder_start_token_id: int.
        pad_token_id: int, replaces -100.

    Returns:
        int32 (b, t), decoder_input_ids.
    """
    labels = token_ids(labels, "labels", axes=2)
    token_id(decoder_start_token_id, "decoder_start_token_id")
    token_id(pad_token_id, "pad_token_id")
    shifted = np.full_like(labels, decoder_start_token_id)
    shifted[:, 1:] = np.where(labels[:, :-1] == IGNORED, pad_token_id, labels[:, :-1])
    return shifted


def next_tokens(input_ids, attention_mask=None):
    """The labels of a causal language model: the label of each token is the next token.

    Args:
        input_ids: int (b, t).
        attention_mask: int (b, t), 1 = real token; padding may be on either side.

    Returns:
        int32 (b, t), -100 at the last token of each row and at padding.
    """
    input_ids = token_ids(input_ids, "input_ids", axes=2)
    mask = np.ones_like(input_ids)
    if attention_mask is not None:
        mask = token_ids(attention_mask, "attention_mask", axes=2)
    if mask.shape != input_ids.shape:
        raise InputError(f"attention_mask is {mask.shape}, but input_ids is {input_ids.shape}")
    labels = np.full_like(input_ids, IGNORED)
    labels[:, :-1] = np.where((mask[:, 1:] * mask[:, :-1]) == 1, input_ids[:, 1:], IGNORED)
    return labels
