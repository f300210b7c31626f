"""Small real models and data, fetched once, for the quickstart, the examples and the tests."""

from keras_seqattn.samples.cache import cache_dir
from keras_seqattn.samples.debian import debian_descriptions
from keras_seqattn.samples.emails import spam_assassin
from keras_seqattn.samples.wheels import minilm, smollm2

__all__ = ["cache_dir", "debian_descriptions", "minilm", "smollm2", "spam_assassin"]
