"""The settings of a generation, with the names and the defaults that transformers gives them."""

import dataclasses
import math
import numbers
from collections.abc import Iterable

from keras_seqattn.errors import InputError

DEFAULT_NEW_TOKENS = 256

# Names that a generation_config.json may hold and that change nothing here.
_INERT = frozenset(
    "bos_token_id transformers_version use_cache cache_implementation return_dict_in_generate "
    "output_scores output_logits output_attentions output_hidden_states cache_config".split()
)
# Names that would change the result: accepted only with the value that turns them off.
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
}
_SAMPLING = {"temperature": 1.0, "top_k": None, "top_p": 1.0, "min_p": None}
_BEAMS = {"length_penalty": 1.0, "early_stopping": False}
_ENCODER = {"decoder_start_token_id": None, "encoder_no_repeat_ngram_size": 0}


@dataclasses.dataclass(frozen=True)
class GenerationConfig:
    """How to choose tokens and when to stop; every name means what it means in transformers.

    Args:
        max_new_tokens: the most tokens to add. None: what `max_length` leaves, else 256, cut to
            what the model's context leaves.
        max_length: the most tokens of prompt and answer together; `max_new_tokens` wins over it.
        min_new_tokens: eos_token_id cannot be chosen before that many tokens.
        min_length: the same, counting the tokens of the prompt (of an encoder-decoder the start
            token) as well; `min_new_tokens` wins over it.
        do_sample: draw from the distribution, otherwise take the most likely token.
        temperature, top_k, top_p, min_p: shape the distribution when sampling. top_k is 50 unless
            set, as in transformers; 0 turns it off.
        repetition_penalty: divides (or multiplies, if negative) the scores of tokens seen already.
        no_repeat_ngram_size: no n-gram of that size may occur twice; 0 is off.
        encoder_no_repeat_ngram_size: no n-gram of that size may be one of the source; 0 is off.
        bad_words_ids: sequences of token ids that may not occur.
        renormalize_logits: normalise the log probabilities of beams after processing them.
        num_beams, length_penalty, early_stopping: beam search (False, True or "never").
        stop_strings: texts that end the answer; the answer's text excludes them.
        seed: makes sampling repeatable.
        eos_token_id: token id, or several, that end a row.
        pad_token_id: fills rows that ended; the first eos_token_id unless set.
        decoder_start_token_id: the token with which an encoder-decoder's decoder begins.
        forced_bos_token_id: what must follow a single first token, such as a language's code.
        forced_eos_token_id: token id, or several, of which one must be the last that fits.
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
        for name in ("eos_token_id", "forced_eos_token_id", "stop_strings"):
            _set(self, name, _as_tuple(getattr(self, name)))
        _set(self, "bad_words_ids", tuple(map(_as_tuple, _as_tuple(self.bad_words_ids))))
        for name, test, wanted in _RANGES:
            value = getattr(self, name)
            if not test(value):
                raise InputError(f"{name}={value!r} is not valid: it must be {wanted}")
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
    def from_settings(cls, file=None, has_encoder=True, **overrides):
        """Merge the dictionary of a generation_config.json with keyword overrides.

        Args:
            file: dict, the parsed generation_config.json, or None.
            has_encoder: bool, the settings are for an encoder-decoder.
            **overrides: settings of this call; they win over the file.

        Raises:
            InputError: a name is unknown, a value is out of range, or overrides contradict one
                another (sampling settings without do_sample, beam settings without num_beams,
                an encoder's settings without one).
        """
        settings = _known_settings(file or {})
        unknown = sorted(set(overrides) - _FIELDS)
        if unknown:
            raise InputError(
                f"unknown generation settings: {', '.join(unknown)}; "
                f"known are {', '.join(sorted(_FIELDS))}"
            )
        # None means "not said", as on a command line.
        overrides = {name: value for name, value in overrides.items() if value is not None}
        for new, whole in (("max_new_tokens", "max_length"), ("min_new_tokens", "min_length")):
            if new in overrides and whole in overrides:
                raise InputError(f"{new} and {whole} contradict each other: give only one")
            if whole in overrides:
                settings.pop(new, None)
            elif new in {**settings, **overrides}:
                settings.pop(whole, None)
        config = cls(**{**settings, **overrides})
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
        """int, the id that fills rows which have ended."""
        if self.pad_token_id is not None:
            return self.pad_token_id
        return self.eos_token_id[0] if self.eos_token_id else 0


_FIELDS = {field.name for field in dataclasses.fields(GenerationConfig)}


def _set(config, name, value):
    object.__setattr__(config, name, value)


def _as_tuple(value):
    if value is None:
        return ()
    several = isinstance(value, Iterable) and not isinstance(value, str)
    return tuple(value) if several else (value,)


def _known_settings(file):
    settings, refused = {}, []
    for name, value in file.items():
        if name in _FIELDS:
            if value is not None:
                settings[name] = value
        elif name in _INERT or name.startswith("_"):
            continue
        elif name not in _NEUTRAL or (value is not None and value != _NEUTRAL[name]):
            refused.append(f"{name}={value!r}")
    if refused:
        raise InputError(
            f"generation_config.json asks for {', '.join(sorted(refused))}, which is not "
            "implemented: remove it from the file"
        )
    return settings


def _refuse_unused(used, overrides, neutral, remedy):
    if used:
        return
    unused = sorted(n for n, off in neutral.items() if n in overrides and overrides[n] != off)
    if unused:
        raise InputError(f"{', '.join(unused)} would have no effect without {remedy}")


def _integer(least):
    return lambda value: (
        isinstance(value, numbers.Integral) and not isinstance(value, bool) and value >= least
    )


def _optional(test):
    return lambda value: value is None or test(value)


def _number(test):
    return lambda value: (
        isinstance(value, numbers.Real) and not isinstance(value, bool) and bool(test(value))
    )


_RANGES = (
    ("max_new_tokens", _optional(_integer(1)), "an integer of at least 1"),
    ("max_length", _optional(_integer(1)), "an integer of at least 1"),
    ("min_new_tokens", _integer(0), "an integer of at least 0"),
    ("min_length", _integer(0), "an integer of at least 0"),
    ("do_sample", lambda value: isinstance(value, bool), "True or False"),
    ("temperature", _number(lambda x: 0 < x < math.inf), "above 0 (greedy is do_sample=False)"),
    ("top_k", _integer(0), "an integer of at least 0 (0 turns it off)"),
    ("top_p", _number(lambda x: 0 <= x <= 1), "between 0 and 1"),
    ("min_p", _optional(_number(lambda x: 0 <= x <= 1)), "between 0 and 1"),
    ("repetition_penalty", _number(lambda x: 0 < x < math.inf), "above 0"),
    ("no_repeat_ngram_size", _integer(0), "an integer of at least 0 (0 turns it off)"),
    ("encoder_no_repeat_ngram_size", _integer(0), "an integer of at least 0 (0 turns it off)"),
    (
        "bad_words_ids",
        lambda x: all(word and all(map(_integer(0), word)) for word in x),
        "sequences of token ids, none empty",
    ),
    ("renormalize_logits", lambda value: isinstance(value, bool), "True or False"),
    ("num_beams", _integer(1), "an integer of at least 1"),
    ("length_penalty", _number(math.isfinite), "a finite number"),
    ("early_stopping", lambda x: isinstance(x, bool) or x == "never", "True, False or 'never'"),
    ("seed", _optional(_integer(0)), "an integer of at least 0"),
    ("eos_token_id", lambda x: all(map(_integer(0), x)), "token ids of at least 0"),
    ("pad_token_id", _optional(_integer(0)), "a token id of at least 0"),
    ("decoder_start_token_id", _optional(_integer(0)), "a token id of at least 0"),
    ("forced_bos_token_id", _optional(_integer(0)), "a token id of at least 0"),
    ("forced_eos_token_id", lambda x: all(map(_integer(0), x)), "token ids of at least 0"),
    ("stop_strings", lambda x: all(isinstance(s, str) and s for s in x), "texts, none empty"),
)


# What config.json may name besides generation_config.json.
_TOKEN_IDS = frozenset(
    "eos_token_id pad_token_id decoder_start_token_id forced_bos_token_id "
    "forced_eos_token_id".split()
)


def position_limit(config, side="decoder"):
    """The most tokens of a row that a model has positions for, or None if it knows no such limit.

    Args:
        config: dict of config.json.
        side: "encoder" or "decoder", of those that have both.
    """
    limit = config.get(f"max_{side}_position_embeddings", config.get("max_position_embeddings"))
    if limit is not None and config.get("model_type") == "longformer":
        # The first rows of its table are those of padding.
        return limit - config.get("pad_token_id", 1) - 1
    return limit


def checkpoint_defaults(config, generation_config):
    """The generation settings of a checkpoint: generation_config.json over config.json.

    Of config.json the token ids count always; other settings, where older checkpoints keep them,
    count where there is no generation_config.json.

    Args:
        config: dict of config.json.
        generation_config: dict of generation_config.json, perhaps empty.
    """
    names = _TOKEN_IDS if generation_config else _TOKEN_IDS | _FIELDS
    known = {name: config[name] for name in names if config.get(name) is not None}
    return known | generation_config
