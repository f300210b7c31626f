"""A tiny LLaMA of transformers, re-randomised, behind the decoder protocol."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

VOCABULARY = 97
EOS, PAD = 5, 3


class TransformersDecoder:
    """Drives a transformers model with a growing cache."""

    vocabulary_size = VOCABULARY

    def __init__(self, model):
        self.model = model
        self.started = None

    def start(self, batch_size, max_length):
        self.started = (batch_size, max_length)
        self.past = None

    def __call__(self, input_ids, attention_mask):
        mask = torch.tensor(np.array(attention_mask))
        position_ids = (mask.cumsum(1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        with torch.no_grad():
            out = self.model(
                input_ids=torch.tensor(np.array(input_ids)),
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=self.past,
                use_cache=True,
            )
        self.past = out.past_key_values
        return out.logits[:, -1].numpy()

    def reorder(self, rows):
        self.past.reorder_cache(torch.tensor(rows))


@pytest.fixture(scope="session")
def reference():
    threads = torch.get_num_threads()
    # More threads than that only wait for one another at this size.
    torch.set_num_threads(1)
    torch.manual_seed(11)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=30,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=10,
        max_position_embeddings=89,
        bos_token_id=None,
        eos_token_id=EOS,
        pad_token_id=PAD,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.5 / parameter.shape[1] ** 0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    yield model
    torch.set_num_threads(threads)


@pytest.fixture
def decoder(reference):
    return TransformersDecoder(reference)


@pytest.fixture
def prompts():
    """Three prompts of 7, 1 and 5 tokens, and the batch that pads them on the left."""
    rng = np.random.default_rng(7)
    rows = [rng.integers(6, VOCABULARY, size=n).tolist() for n in (7, 1, 5)]
    ids = np.full((3, 7), PAD)
    mask = np.zeros((3, 7), np.int64)
    for i, row in enumerate(rows):
        ids[i, 7 - len(row) :] = row
        mask[i, 7 - len(row) :] = 1
    return rows, ids, mask
