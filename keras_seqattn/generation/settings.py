"""The settings of a generation, with the names and defaults of transformers."""

import dataclasses
import math
import numbers

import numpy as np

from keras_seqattn.arguments import shown
from keras_seqattn.errors import InputError

DEFAULT_NEW_TOKENS = 256

# Names that a generation_config.json may hold and that change nothing here. They say how a model is
# run and what is returned besides the tokens, or only an assistant model reads them.
_INERT = frozenset(
    "bos_token_id transformers_version use_cache cache_implementation return_dict_in_generate "
    "output_scores output_logits output_attentions output_hidden_states cache_config "
    "compile_config disable_compile low_memory prefill_chunk_size return_legacy_cache "
    "assistant_confidence_threshold assistant_early_exit assistant_ensemble_weight "
    "assistant_lookbehind is_assistant num_assistant_tokens num_assistant_tokens_schedule "
    "target_lookbehind".split()
)
# Names that would change the result. Only the value that turns them off is accepted.
_NEUTRAL = {
    "typical_p": 1.0,
    "top_h": None,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "encoder_repetition_penalty": 1.0,
    "sequence_bias": None,
    "num_return_sequences": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "guidance_scale": 1.0,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "watermarking_config": None,
    "penalty_alpha": 0.0,
    "max_time": None,
    "token_healing": False,
}
_SAMPLING = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": None}
_BEAMS = {"length_penalty": 1.0, "early_stopping": False}
_ENCODER = {"decoder_start_token_id": None, "encoder_no_repeat_ngram_size": 0}


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How to choose tokens and when to stop. Every name has the same meaning as in transformers.

    Args:
        max_new_tokens: maximum number of new tokens. None: as many as `max_length` allows; without
            `max_length` 256, or less if the model's context is full sooner.
        max_length: maximum number of tokens of prompt and answer together. `max_new_tokens` has
            priority over it.
        min_new_tokens: eos_token_id cannot be chosen before there are so many new tokens.
        min_length: the same, but the tokens of the prompt (for an encoder-decoder, the start token)
            count too. `min_new_tokens` has priority over it.
        do_sample: draw from the distribution. False takes the most likely token.
        temperature, top_k, top_p, min_p: shape the distribution when sampling. The default of top_k
            is 50, as in transformers; 0 turns it off.
        repetition_penalty: divides the scores of tokens that occurred (negative scores are
            multiplied).
        no_repeat_ngram_size: no n-gram of that size may occur twice; 0 turns it off.
        encoder_no_repeat_ngram_size: no n-gram of that size may occur in the source; 0 turns it
            off.
        bad_words_ids: sequences of token ids that may not occur.
        renormalize_logits: normalise the log probabilities of beams after processing them.
        num_beams, length_penalty, early_stopping: beam search (False, True or "never").
        stop_strings: texts that end the answer; the answer does not contain them.
        seed: makes sampling repeatable.
        eos_token_id: one or several token ids that end a row.
        pad_token_id: fills rows that ended. The default is the first eos_token_id.
        decoder_start_token_id: first token of the decoder of an encoder-decoder.
        forced_bos_token_id: the token that must follow a single first token, such as the code of a
            language.
        forced_eos_token_id: one or several token ids; the last possible token must be one of them.
    """

    max_new_tokens: int | None = None
    max_length: int | None = None
    min_new_tokens: int = 0
    min_length: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float | None = None
    repetition_penalty: float = 1.0
    no_repeat_ngram_size: int = 0
    encoder_no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    renormalize_logits: bool = False
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    stop_strings: tuple[str, ...] = ()
    seed: int | None = None
    eos_token_id: tuple[int, ...] = ()
    pad_token_id: int | None = None
    decoder_start_token_id: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] | None = None

    def __post_init__(self):
        for name in _RANGES:
            object.__setattr__(self, name, _checked(name, getattr(self, name)))
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise InputError(
                f"min_new_tokens={self.min_new_tokens} is more than "
                f"max_new_tokens={self.max_new_tokens}"
            )
        if self.max_length is not None and self.min_length > self.max_length:
            raise InputError(
                f"min_length={self.min_length} is more than max_length={self.max_length}"
            )

    @classmethod
    def from_settings(cls, file=None, /, has_encoder=True, **overrides):
        """Merge the dictionary of a generation_config.json with keyword overrides.

        Args:
            file: dict, the parsed generation_config.json, or None.
            has_encoder: bool, whether the settings are for an encoder-decoder.
            **overrides: settings of this call. They have priority over the file.

        Raises:
            InputError: a name is unknown, a value is out of range, or overrides contradict each
                other (sampling settings without do_sample, beam settings without num_beams,
                settings of an encoder for a model without one).
        """
        settings = _known_settings(file or {})
        check_names(overrides)
        # None means that the setting is not given, as on a command line.
        overrides = {name: value for name, value in overrides.items() if value is not None}
        for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            if new in overrides and whole in overrides:
                raise InputError(f"{new} and {whole} contradict each other: give only one")
            if whole in overrides:
                settings.pop(new, None)
            elif new in {**settings, **overrides}:
                settings.pop(whole, None)
        filed = {
            name: _checked(name, settings[name], _FILE) for name in set(settings) - set(overrides)
        }
        config = cls(**filed, **overrides)
        _refuse_unused(config.do_sample, overrides, _SAMPLING, "do_sample=True")
        _refuse_unused(config.num_beams > 1, overrides, _BEAMS, "num_beams above 1")
        _refuse_unused(has_encoder, overrides, _ENCODER, "an encoder")
        return config

    def new_tokens(self, prompt_length, context_length=None):
        """The number of tokens that may be added to a prompt of `prompt_length` tokens.

        Raises:
            InputError: the prompt, or the prompt and max_new_tokens, exceed `context_length`.
        """
        limit = math.inf if context_length is None else context_length
        if prompt_length >= limit:
            raise InputError(
                f"the prompt has {prompt_length} tokens, and the model's context is {limit}: "
                "shorten the prompt"
            )
        if self.max_new_tokens is not None:
            if prompt_length + self.max_new_tokens > limit:
                raise InputError(
                    f"the prompt has {prompt_length} tokens, which with "
                    f"max_new_tokens={self.max_new_tokens} exceeds the model's context of {limit} "
                    f"tokens: shorten the prompt or lower max_new_tokens"
                )
            return self.max_new_tokens
        if self.max_length is None:
            return int(min(DEFAULT_NEW_TOKENS, limit - prompt_length))
        if prompt_length >= self.max_length:
            raise InputError(
                f"the prompt has {prompt_length} tokens and max_length={self.max_length} leaves "
                "none to add: raise max_length or give max_new_tokens"
            )
        return int(min(self.max_length, limit) - prompt_length)

    @property
    def padding(self):
        """int, the id that fills rows after their end."""
        if self.pad_token_id is not None:
            return self.pad_token_id
        return self.eos_token_id[0] if self.eos_token_id else 0


FIELDS = {field.name for field in dataclasses.fields(GenerationConfig)}


def check_names(settings):
    """Raise InputError unless all names of a dictionary are generation settings."""
    unknown = [shown(name).strip("'") for name in set(settings) - FIELDS]
    if unknown:
        raise InputError(
            f"unknown generation settings: {_listed(unknown)}; "
            f"known are {', '.join(sorted(FIELDS))}"
        )


def _listed(names, most=6):
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more


def _checked(name, value, file=None):
    """The value of a setting as int, float or tuple; InputError if it is not valid."""
    form, test, wanted = _RANGES[name]
    try:
        formed = form(value)
        if test(formed):
            return formed
    except (TypeError, ValueError, OverflowError):  # the value cannot be converted
        pass
    place = f"{file} holds a wrong value: " if file else ""
    raise InputError(f"{place}{name}={shown(value)} is not valid: it must be {wanted}")


def _known_settings(file):
    settings, refused = {}, []
    for name, value in file.items():
        # For every name, null means that the setting is not given.
        if value is None or name in _INERT or name.startswith("_"):
            continue
        if name in FIELDS:
            settings[name] = value
        elif not _asks_nothing(name, value):
            refused.append(f"{shown(name)[1:-1]}={shown(value)}")
    if refused:
        raise InputError(
            f"generation_config.json asks for {_listed(refused)}, which is not "
            "implemented: remove it from the file"
        )
    return settings


def _asks_nothing(name, value):
    is_empty = isinstance(value, (list, dict)) and not value
    return is_empty or (name in _NEUTRAL and value == _NEUTRAL[name])


def _refuse_unused(used, overrides, neutral, remedy):
    if used:
        return
    unused = sorted(n for n, off in neutral.items() if n in overrides and overrides[n] != off)
    if unused:
        raise InputError(f"{', '.join(unused)} would have no effect without {remedy}")


def _as_it_is(value):
    return value


def _integer(value):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError
    return int(value)


def _number(value):
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError
    return float(value)


def _integers(value):
    return tuple(map(_integer, _as_tuple(value)))


def _sequences(value):
    return tuple(map(_integers, _as_tuple(value)))


def _as_tuple(value):
    if value is None:
        return ()
    if isinstance(value, np.ndarray):
        if value.size > _MOST_VALUES:
            raise ValueError
        value = value.tolist()
    return tuple(value) if isinstance(value, (list, tuple, set, frozenset)) else (value,)


def _optional(form):
    return lambda value: None if value is None else form(value)


def _within(least, most):
    return lambda value: value is None or least <= value <= most


def _all_within(least, most):
    return lambda values: all(least <= value <= most for value in values)


# Sizes and ids are int64. In most models, token ids are int32.
_MOST, _MOST_ID = 2**63 - 1, 2**31 - 1
# With factors in this range, float32 scores neither overflow nor lose their differences.
_FACTORS = 1e-9, 1e9
# The text of each answer is compared with each stop string, so their number has a limit.
_MOST_STOP_STRINGS = 1000
# A broadcast array may have very many elements, so their number has a limit.
_MOST_VALUES = 10**6
_COUNT = "an integer of at least 1 and below 2**63"
_LEAST = "an integer of at least 0 and below 2**63"
_SIZE = "an integer of at least 0 (0 turns it off) and below 2**31"
_ID = "a token id of at least 0 and below 2**31"
_IDS = "token ids of at least 0 and below 2**31"
_SWITCH = (_as_it_is, lambda value: isinstance(value, bool), "True or False")

# name -> a function that converts a value (TypeError: it has a wrong type), a function that says
# whether the converted value is valid, and a text that says which values are allowed.
_RANGES = {
    "max_new_tokens": (_optional(_integer), _within(1, _MOST), _COUNT),
    "max_length": (_optional(_integer), _within(1, _MOST), _COUNT),
    "min_new_tokens": (_integer, _within(0, _MOST), _LEAST),
    "min_length": (_integer, _within(0, _MOST), _LEAST),
    "do_sample": _SWITCH,
    "temperature": (
        _number,
        _within(*_FACTORS),
        "above 0 (greedy is do_sample=False), from 1e-9 to 1e9",
    ),
    "top_k": (_integer, _within(0, _MOST), f"{_LEAST} (0 turns it off)"),
    "top_p": (_number, _within(0, 1), "between 0 and 1"),
    "min_p": (_optional(_number), _within(0, 1), "between 0 and 1"),
    "repetition_penalty": (
        _number,
        _within(*_FACTORS),
        "above 0 (1 turns it off), from 1e-9 to 1e9",
    ),
    "no_repeat_ngram_size": (_integer, _within(0, _MOST_ID), _SIZE),
    "encoder_no_repeat_ngram_size": (_integer, _within(0, _MOST_ID), _SIZE),
    "bad_words_ids": (
        _sequences,
        lambda words: all(words) and all(map(_all_within(0, _MOST_ID), words)),
        f"sequences of token ids, none empty; {_IDS}",
    ),
    "renormalize_logits": _SWITCH,
    "num_beams": (_integer, _within(1, _MOST), _COUNT),
    "length_penalty": (_number, _within(-1000, 1000), "a finite number from -1000 to 1000"),
    "early_stopping": (
        _as_it_is,
        lambda value: isinstance(value, bool) or (isinstance(value, str) and value == "never"),
        "True, False or 'never'",
    ),
    "seed": (_optional(_integer), _within(0, math.inf), "an integer of at least 0"),
    "eos_token_id": (_integers, _all_within(0, _MOST_ID), _IDS),
    "pad_token_id": (_optional(_integer), _within(0, _MOST_ID), _ID),
    "decoder_start_token_id": (_optional(_integer), _within(0, _MOST_ID), _ID),
    "forced_bos_token_id": (_optional(_integer), _within(0, _MOST_ID), _ID),
    "forced_eos_token_id": (_integers, _all_within(0, _MOST_ID), _IDS),
    "stop_strings": (
        _as_tuple,
        lambda texts: (
            len(texts) <= _MOST_STOP_STRINGS and all(isinstance(s, str) and s for s in texts)
        ),
        f"at most {_MOST_STOP_STRINGS} texts, none empty",
    ),
}
_FILE = "generation_config.json or config.json"
