"""Model families as functional Keras models, loaded from and saved to checkpoints."""

from keras_seqattn.models.api import build, load, save
from keras_seqattn.models.decoding import KerasDecoder, KerasEncoderDecoder
from keras_seqattn.models.family import Family
from keras_seqattn.models.registry import register, register_head
from keras_seqattn.models.sequence_model import SequenceModel

__all__ = [
    "Family",
    "KerasDecoder",
    "KerasEncoderDecoder",
    "SequenceModel",
    "build",
    "load",
    "register",
    "register_head",
    "save",
]
