"""The common part of Longformer-like families: windows, global tokens and their weights."""

from keras_seqattn.arguments import shown
from keras_seqattn.errors import ConfigError
from keras_seqattn.layers.mechanisms.global_local import GlobalLocal
from keras_seqattn.models.values import SIZE, Listed
from keras_seqattn.weights.rows import dense_rows

# The maximum number of global tokens per row. This is not a key of transformers: there the number
# may change with each batch.
MAX_GLOBAL_TOKENS = "max_global_tokens"
WINDOW_DEFAULTS = {"attention_window": 512, MAX_GLOBAL_TOKENS: 64}
WINDOW_KEYS = {"attention_window": Listed(SIZE, alone=True), MAX_GLOBAL_TOKENS: SIZE}
# The sizes of the scores of a window, and of the scores of the global tokens.
WINDOW_EXTENT = ("attention_window * attention_window", "max_global_tokens * max_global_tokens")


def window_attentions(model_type, settings, num_layers, width, initializer):
    """The mechanism of each layer.

    Args:
        model_type: as in config.json, for messages.
        settings: dict with attention_window, the number of keys on both sides together (one number,
            or one for each layer), and max_global_tokens.
        num_layers: number of layers.
        width: m.
        initializer: function that makes a kernel initializer.

    Returns:
        list of `GlobalLocal`.

    Raises:
        ConfigError: a window is odd or 0, or there is not one for each layer.
    """
    windows = settings["attention_window"]
    if isinstance(windows, int):
        windows = [windows] * num_layers
    valid = len(windows) == num_layers and all(type(n) is int for n in windows)
    if not valid or any(n < 2 or n % 2 for n in windows):
        raise ConfigError(
            f"{model_type}: attention_window must be an even number above 0, or one for each of "
            f"{num_layers} layers, not {shown(settings['attention_window'])}."
        )
    return [
        GlobalLocal(
            n // 2,
            n // 2,
            settings[MAX_GLOBAL_TOKENS],
            input_dim=width,
            kernel_initializer=initializer(),
        )
        for n in windows
    ]


def most_global_tokens(settings):
    """For `Family.most_global_tokens`."""
    return settings[MAX_GLOBAL_TOKENS]


def global_rows(checkpoint, variable):
    """The rows of the global projections of an attention.

    Args:
        checkpoint: start of the checkpoint names.
        variable: path of the `MultiHeadAttention`.
    """
    names = [f"{name}_global" for name in ("query", "key", "value")]
    pairs = [dense_rows(f"{checkpoint}.{name}", f"{variable}/mechanism/{name}") for name in names]
    return tuple(row for pair in pairs for row in pair)
