"""Compares the memory that a generation needs with the available memory, before it begins."""

import numpy as np

from keras_seqattn.errors import InputError
from keras_seqattn.generation.settings import GenerationConfig
from keras_seqattn.memory import check_memory

# A decoder with states reads at most this number of tokens at once: the states have a fixed size.
LARGEST_CHUNK = 1024
# Bytes per score of a step: the score, the processed score, and its place in the order.
_SCORES = 3 * 4
# Bytes per id of a row. A row of beam search also has candidates and finished rows.
_IDS, _BEAM_IDS = 2 * 8, 6 * 8


def check_room(decoder, prompts, length, config, steps, source_length=0):
    """Refuse a generation that cannot fit into memory.

    Args:
        decoder: follows the protocol of `keras_seqattn.generation`. If it has a method
            `room(rows, prompt_length, max_length, sources, source_length)`, this is the number of
            bytes of its past.
        prompts: int b, the number of prompts.
        length: int, the number of tokens of a prompt.
        config: GenerationConfig.
        steps: int, the maximum number of new tokens.
        source_length: int, the number of tokens of a source.

    Raises:
        InputError: the generation needs more memory than is available.
    """
    rows = prompts * config.num_beams
    beamed = config.num_beams > 1
    # Ids need memory only when they come, so an endless answer of one row is allowed.
    needed = rows * (decoder.vocabulary_size * _SCORES + length * (_BEAM_IDS if beamed else _IDS))
    room = getattr(decoder, "room", None)
    if room is not None:
        needed += room(rows, length, length + steps, prompts, source_length)
    beams = f" of {config.num_beams} beams" if beamed else ""
    read = f"{source_length or length} tokens of prompt"
    check_memory(
        needed,
        f"{prompts} rows{beams} with {read} and {steps} new tokens",
        f"lower {'num_beams, ' if beamed else ''}max_new_tokens, the prompts or their number",
    )


def check_run(input_ids, attention_mask, config, max_new_tokens, source):
    """Refuse arguments of `decode` and `beam_search` that cannot be run.

    The source may be features, float (b, s, f), and not ids.
    """
    if not isinstance(config, GenerationConfig):
        raise InputError(f"config must be a GenerationConfig, not {type(config).__name__}")
    _check_ids(input_ids, attention_mask)
    if source is not None:
        values, mask = source
        is_float = isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim == 3
        _check_ids(np.zeros(values.shape[:2], np.int64) if is_float else values, mask)
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise InputError(f"max_new_tokens={max_new_tokens!r} must be an integer of at least 1")


def _check_ids(ids, mask):
    arrays = [x for x in (ids, mask) if isinstance(x, np.ndarray) and x.dtype.kind in "iu"]
    if len(arrays) < 2 or ids.ndim != 2 or ids.shape != mask.shape or not ids.size:
        raise InputError("ids and masks must be integer arrays (b, t) of one shape, not empty")
