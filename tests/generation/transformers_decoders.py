"""Models of transformers behind the decoder protocol, and tiny re-randomised ones of each kind."""

import numpy as np
import torch

EOS, PAD, START = 5, 3, 4


def randomised(model, seed=11):
    """The model with every matrix drawn N(0, 1.5 / sqrt(fan_in)), vectors N(0, 0.3) added."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "embed_positions" in name and not parameter.requires_grad:
                continue
            if parameter.ndim > 1:
                parameter.copy_(noise * 1.5 / parameter.shape[1] ** 0.5)
            else:
                parameter.add_(noise * 0.3)
    return model.eval()


class TransformersEncoderDecoder:
    """Drives an encoder-decoder of transformers with a growing cache."""

    def __init__(self, model):
        self.model = model
        self.vocabulary_size = self.source_vocabulary_size = model.config.vocab_size
        self.encoded = []

    def encode(self, input_ids, attention_mask):
        self.encoded.append(input_ids.shape)
        self.mask = torch.tensor(attention_mask)
        with torch.no_grad():
            encoder = self.model.get_encoder()
            self.states = encoder(torch.tensor(input_ids), attention_mask=self.mask)[0]

    def start(self, batch_size, max_length):
        self.beams = batch_size // len(self.states)
        self.past = None

    def __call__(self, input_ids, attention_mask):
        with torch.no_grad():
            out = self.model(
                decoder_input_ids=torch.tensor(np.array(input_ids)),
                encoder_outputs=(self.states.repeat_interleave(self.beams, 0),),
                attention_mask=self.mask.repeat_interleave(self.beams, 0),
                past_key_values=self.past,
                use_cache=True,
            )
        self.past = out.past_key_values
        return out.logits[:, -1].numpy()

    def reorder(self, rows):
        self.past.reorder_cache(torch.tensor(rows))


def padded(rows, padding=PAD, side="right"):
    """ids and mask int64 (b, s) of rows of different lengths."""
    length = max(map(len, rows))
    ids, mask = np.full((len(rows), length), padding), np.zeros((len(rows), length), np.int64)
    for i, row in enumerate(rows):
        place = slice(length - len(row), None) if side == "left" else slice(len(row))
        ids[i, place], mask[i, place] = row, 1
    return ids, mask
