"""Trains a tokenizer on your own texts."""

import json

from keras_seqattn.arguments import integer, text
from keras_seqattn.errors import InputError
from keras_seqattn.training.checks import iterable

# Their ids are their positions here: padding is 0.
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")


def train_bpe(texts, vocabulary_size=8000, min_frequency=2):
    """Train byte-level BPE (Sennrich et al. 2016; Radford et al. 2019), which decodes exactly.

    An encoded text ends with </s>. The special tokens <pad>, <s>, </s>, <unk> have ids 0 to 3.

    Args:
        texts: list of str, in every language that the model reads or writes.
        vocabulary_size: int, the maximum size; at least 260, for the bytes and the special tokens.
        min_frequency: int, a pair is merged if it occurs at least this often.

    Returns:
        dict of file name -> bytes, for `model.assets`: tokenizer.json and tokenizer_config.json.

    Raises:
        InputError: the vocabulary is too small.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    iterable(texts, "texts")
    integer(min_frequency, "min_frequency", most=2**31 - 1)
    if integer(vocabulary_size, "vocabulary_size", most=2**31 - 1) < len(alphabet) + len(
        SPECIAL_TOKENS
    ):
        raise InputError(
            f"vocabulary_size must be at least {len(alphabet) + len(SPECIAL_TOKENS)}, "
            f"not {vocabulary_size}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        min_frequency=min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(map(text, texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 2)]
    )
    pad, start, end, unknown = SPECIAL_TOKENS
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "bos_token": start,
        "eos_token": end,
        "unk_token": unknown,
        "clean_up_tokenization_spaces": False,
    }
    return {
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
    }
