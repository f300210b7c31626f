"""What the two models with attention look at while they translate a held-out sentence."""

import numpy as np

from keras_seqattn import analysis, models


def measure(family, source, settings, folder):
    """Scores of a model's attention to the source, while it decodes its own translation.

    Args:
        family: "bahdanau" or "transformer".
        source: str.
        settings: Settings.
        folder: pathlib.Path of the trained models.

    Returns:
        dict: source_tokens, target_tokens, layers (path -> nested list (h, t, s)) and entropies
        (path -> mean over heads and target tokens, in bits).
    """
    model = models.load(folder / family)
    scores = analysis.attention(model, source, max_new_tokens=settings.max_new_tokens, num_beams=1)
    layers = {path: array[0] for path, array in scores.items() if _crosses(path)}
    return {
        "source_tokens": scores.tokens[0],
        "target_tokens": scores.target_tokens[0],
        "layers": {path: np.round(array, 4).tolist() for path, array in layers.items()},
        "entropies": {
            path: float(analysis.attention_entropy(array).mean() / np.log(2))
            for path, array in layers.items()
        },
    }


def _crosses(path):
    """Whether a layer attends to the source: a recurrent decoder, or a block's cross-attention."""
    return path == "decoder" or path.endswith("cross_attention")
