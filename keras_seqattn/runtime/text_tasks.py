"""What the checkpoint of an encoder-decoder says about translating and summarizing."""

from keras_seqattn.errors import InputError

_TRANSLATION, _ANY = "translation_", "translation"
_SINGLE = (_ANY, "summarization")


def summarization(config):
    """The prefix of texts to summarize, and the generation settings.

    Args:
        config: dict of config.json; its task_specific_params may hold "summarization".

    Returns:
        str and dict.
    """
    return _prefix_and_settings(_tasks(config).get("summarization", {}))


def translation(config, tokenizer, source=None, target=None):
    """The prefix of texts to translate, and the generation settings.

    Args:
        config: dict of config.json. Its task_specific_params may hold entries such as
            "translation_en_to_de", as in T5.
        tokenizer: Tokenizer. Its special tokens may be the codes of languages, as in mBART.
        source, target: names of languages in the checkpoint. None takes the only language.

    Returns:
        str and dict.

    Raises:
        InputError: the checkpoint does not have the languages, or it has several and none is given.
    """
    pairs = {
        tuple(name.removeprefix(_TRANSLATION).split("_to_", 1)): settings
        for name, settings in _tasks(config).items()
        if name.startswith(_TRANSLATION) and "_to_" in name
    }
    if pairs:
        return _prefix_and_settings(pairs[_choose(list(pairs), source, target)])
    if source is not None:
        _check_source(tokenizer, source)
    if target is None:
        return _prefix_and_settings(_tasks(config).get(_ANY, {}))
    code = tokenizer.special_token_id(target)
    if code is None:
        raise InputError(
            f"target={target!r}: neither task_specific_params in config.json nor the tokenizer "
            "names this language; leave target out if the model has only one pair of languages"
        )
    return "", {"forced_bos_token_id": code}


def task_settings(config):
    """list of (name, settings) of task_specific_params, for `translate` and `summarize`.

    Args:
        config: dict of config.json.
    """
    tasks = _tasks(config)
    pairs = [name for name in tasks if name.startswith(_TRANSLATION) and "_to_" in name]
    names = [*pairs, *(name for name in _SINGLE if name in tasks and not (pairs and name == _ANY))]
    return [(name, _prefix_and_settings(tasks[name])[1]) for name in names]


def _choose(pairs, source, target):
    fitting = [pair for pair in pairs if source in (None, pair[0]) and target in (None, pair[-1])]
    if len(fitting) != 1:
        known = ", ".join(f"{first} to {last}" for first, last in pairs)
        asked = f"source={source!r} and target={target!r}"
        raise InputError(f"{asked} must choose one of the languages in config.json: {known}")
    return fitting[0]


def _check_source(tokenizer, source):
    # The template of the tokenizer itself writes the code of its source language.
    written = tokenizer.config.get("src_lang")
    if source != written:
        raise InputError(
            f"source={source!r}: the source language of the tokenizer's files is "
            f"{written or 'not named'}; use files for the other language, or leave source out"
        )


def _tasks(config):
    return config.get("task_specific_params") or {}


def _prefix_and_settings(settings):
    settings = dict(settings)
    return settings.pop("prefix", None) or "", settings
