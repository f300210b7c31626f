"""Tasks of keras-hub that generate text, as models of this library. keras-hub is not imported."""

from keras_seqattn.models.hub_decoder import HubDecoder
from keras_seqattn.models.hub_seq2seq import HubSeq2Seq

_TASKS = {"CausalLM": HubDecoder, "Seq2SeqLM": HubSeq2Seq}


def adopted(model):
    """A `HubDecoder` or `HubSeq2Seq` of a task of keras-hub. Any other model does not change.

    Raises:
        ConfigError: the task generates in another way than with keys and values of text.
    """
    for cls in type(model).__mro__:
        if cls.__module__.startswith("keras_hub.") and cls.__name__ in _TASKS:
            return _TASKS[cls.__name__](model)
    return model
