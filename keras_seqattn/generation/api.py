"""`keras_seqattn.generate`: generation with a Keras model."""

import copy
import threading

from keras_seqattn.errors import CheckpointError, InputError
from keras_seqattn.generation.checkpoint import checkpoint_defaults, position_limit
from keras_seqattn.generation.generator import Generator
from keras_seqattn.generation.pool import DecoderPool
from keras_seqattn.json_objects import parse_object
from keras_seqattn.tasks import task_of_model

_MAKING = threading.Lock()


def generate(model, inputs, attention_mask=None, tokenizer=None, **settings):
    """Generate with a Keras `SequenceModel`. Its step is compiled only once.

    Threads may share the model if no thread changes its weights.

    Args:
        model: SequenceModel of task causal_lm or seq2seq_lm.
        inputs: a text, a list of texts, token ids as a list, a list of lists, or an integer array
            (t,) or (b, t). For a model that reads features: float (b, t, f).
        attention_mask: int (b, t) with an array, 1 = real token; the padding is on the left (for
            seq2seq_lm, on either side).
        tokenizer: an object with `encode(text, special_tokens)` and `decode(ids)`. None takes the
            one in `model.assets`.
        **settings: names of `keras_seqattn.generation.GenerationConfig`, such as max_new_tokens,
            do_sample, temperature, num_beams, stop_strings.

    Returns:
        The texts after the prompts, or the answers of a seq2seq_lm model: str or list of str for
        texts, new token ids for ids.

    Raises:
        InputError: the model does not generate, or prompts or settings are not valid.

    Example:
        >>> model = keras_seqattn.models.load("SmolLM2-135M-Instruct.gguf")
        >>> keras_seqattn.generate(model, "The capital of France is", max_new_tokens=8)
    """
    task = task_of_model(model)
    if not task.generates:
        raise InputError(
            "generate needs a model of task causal_lm or seq2seq_lm, and the task of this model is "
            f"{task.name} ({type(model).__name__})"
        )
    assets = model.assets or {}
    if tokenizer is None and "tokenizer.json" in assets:
        from keras_seqattn.runtime.tokenizer import Tokenizer

        tokenizer = Tokenizer(assets)
    name = "generation_config.json"
    file = parse_object(assets.get(name, b"{}"), name, CheckpointError)
    generator = Generator(
        _decoders_of(model),
        tokenizer=tokenizer,
        defaults=checkpoint_defaults(model.config, file),
        context_length=position_limit(model.config),
    )
    return generator.generate(inputs, attention_mask, **settings)


def _decoders_of(model):
    """The decoders of the model. They share one step, so that it is compiled only once."""
    with _MAKING:
        decoders = getattr(model, "_decoders", None)
        if decoders is None:
            # Imported here: this package must not import Keras.
            from keras_seqattn.models.decoding import KerasDecoder, KerasEncoderDecoder

            reads_source = task_of_model(model).reads_source
            decoder = (KerasEncoderDecoder if reads_source else KerasDecoder)(model)
            # `start` makes a new past, so nothing has to be kept for the next generation.
            decoders = DecoderPool(lambda: copy.copy(decoder), most_idle=0)
            model._decoders = decoders
        return decoders
