"""What a generation asks of memory, compared with what there is before it begins."""

import numpy as np

from keras_seqattn.errors import InputError
from keras_seqattn.generation.settings import GenerationConfig
from keras_seqattn.memory import check_memory

# The most tokens that a decoder with states reads at once: what it keeps of them has a fixed size.
LARGEST_CHUNK = 1024
# The scores of a step, what is left of them after processing, and their order.
_SCORES = 3 * 4
# The ids of a row, and of a beam those of its candidates and finished rows too.
_IDS, _BEAM_IDS = 2 * 8, 6 * 8


def check_room(decoder, prompts, length, config, steps, source_length=0):
    """Refuse a generation that cannot fit into memory.

    Args:
        decoder: follows the protocol of `keras_seqattn.generation`; if it has a method
            `room(rows, prompt_length, max_length, sources, source_length)`, that says how many
            bytes its past takes.
        prompts: int b, the number of prompts.
        length: int, tokens of a prompt.
        config: GenerationConfig.
        steps: int, the most tokens to add.
        source_length: int, tokens of a source.

    Raises:
        InputError: it needs more than is available.
    """
    rows = prompts * config.num_beams
    beamed = config.num_beams > 1
    # Ids are stored as they come: an endless answer of one row is no matter.
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
    """Refuse what `decode` and `beam_search` cannot run; their arguments.

    The source may be features, float (b, s, f), in the place of ids.
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
