"""Run an exported bundle with NumPy, onnxruntime and tokenizers. Keras is not needed."""

from keras_seqattn.runtime.model import BundleModel, load
from keras_seqattn.runtime.tokenizer import Tokenizer

__all__ = ["BundleModel", "Tokenizer", "load"]
