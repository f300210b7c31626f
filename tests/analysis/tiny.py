"""A tiny tokenizer, whose words are letters."""

import json


def tokenizer_assets():
    """Assets with a tokenizer of 4 special tokens and 19 letters, one token a word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = [*special, *"abcdefghijklmnopqrs"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 2)]
    )
    tokenizer.add_special_tokens(special)
    config = {"pad_token": "<pad>", "eos_token": "</s>"}
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(config).encode(),
    }
