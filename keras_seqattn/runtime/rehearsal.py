"""Checks that everything in a bundle can be used: each part is parsed and tried once, briefly."""

import contextlib

import numpy as np

from keras_seqattn.errors import BundleError, SeqAttnError
from keras_seqattn.generation.checkpoint import checkpoint_defaults
from keras_seqattn.generation.prompts import check_token_ids
from keras_seqattn.generation.settings import GenerationConfig
from keras_seqattn.runtime.chat import ChatTemplate, template_source
from keras_seqattn.runtime.config import check_config, max_sequence_length
from keras_seqattn.runtime.graph_ports import numpy_dtype
from keras_seqattn.runtime.pooling import Pooling
from keras_seqattn.runtime.signatures import is_of_texts
from keras_seqattn.runtime.text_tasks import task_settings
from keras_seqattn.runtime.tokenizer import Tokenizer
from keras_seqattn.runtime.values import static_size
from keras_seqattn.tasks import EMBEDDING, find_task

_TEXT = "Hello, world! 1 2 3"
_STEPS = 2
# If a tokenizer knows no common word, one of its first tokens must make a text. So many are tried.
_TOKENS = 100
_USER, _ANSWER = {"role": "user", "content": _TEXT}, {"role": "assistant", "content": "Yes."}
_SYSTEM = {"role": "system", "content": "Be brief."}
# Some templates refuse a system message or a second question. Each must accept one conversation.
_CONVERSATIONS = ([_USER], [_USER, _ANSWER, _USER], [_SYSTEM, _USER])
_SETTINGS = "generation_config.json or config.json"


def rehearse(model):
    """Use everything that a bundle holds. Models that generate make two tokens.

    Args:
        model: BundleModel.

    Returns:
        list of str, the parts that were tried.

    Raises:
        BundleError: something cannot be used. The message names the file.
    """
    done = check_companions(
        model.task, model.config, model.bundle.generation_config, model.bundle.assets
    )
    task = find_task(model.task)
    if task.generates:
        return done + _generate(model, task)
    return done + (_run(model) if task.method is None else _read(model, task.method))


def check_companions(task, config, generation_config, assets):
    """Parse and try the files beside the graph, as far as this is possible without the graph.

    Args:
        task: the name of the task, or None.
        config: dict of config.json.
        generation_config: dict of generation_config.json.
        assets: dict of file name -> bytes.

    Returns:
        list of str, the parts that were tried.

    Raises:
        BundleError: a file is not valid. The message names it.
    """
    check_config(config)
    task = find_task(task)
    done, tokenizer = [], None
    if "tokenizer.json" in assets:
        tokenizer = Tokenizer(assets)
        with _blaming("tokenizer.json"):
            _check_tokenizer(tokenizer, config.get("vocab_size"))
        done.append("tokenizer")
    if task.generates:
        _check_settings(task, checkpoint_defaults(config, generation_config), config)
        done.append("generation settings")
    if _chats(task) and tokenizer is not None and template_source(assets, tokenizer):
        with _blaming("chat_template.jinja or chat_template in tokenizer_config.json"):
            _check_template(ChatTemplate.from_assets(assets, tokenizer))
        done.append("chat template")
    if task == EMBEDDING:
        Pooling.from_assets(assets)
        done.append("pooling")
    max_sequence_length(assets)
    return done


def _check_tokenizer(tokenizer, vocabulary_size):
    text = _sample(tokenizer)
    if text is None:
        raise BundleError("it makes no tokens from any text")
    ids = tokenizer.encode(text)
    tokenizer.decode(ids)
    tokenizer.decode(ids, special_tokens=True)
    if vocabulary_size is None:
        return
    # An added token without a place in the model is refused only when a text contains it.
    largest = max(tokenizer.vocabulary.values(), default=0)
    check_token_ids(np.array([largest, *ids], np.int64), vocabulary_size, "the vocabulary")


def _sample(tokenizer, most=None):
    """A text of which the tokenizer makes tokens (not more than `most` of them), or None."""
    tokens = sorted(tokenizer.vocabulary.values())[:_TOKENS]
    for text in (_TEXT, "Hello", *(tokenizer.decode([token]) for token in tokens)):
        size = len(tokenizer.encode(text)) if text else 0
        if size and (most is None or size <= most):
            return text
    return None


def _chats(task):
    return task.generates and not task.reads_source


def _check_settings(task, defaults, config):
    has_encoder = task.reads_source
    with _blaming(_SETTINGS):
        GenerationConfig.from_settings(defaults, has_encoder)
    for name, settings in task_settings(config) if has_encoder else ():
        with _blaming(f"task_specific_params of config.json, {name}"):
            GenerationConfig.from_settings(defaults | settings, has_encoder)


def _check_template(template):
    """Render sample conversations. At least one must succeed."""
    refused = None
    for messages in _CONVERSATIONS:
        try:
            template.render(messages)
            return
        except SeqAttnError as error:
            refused = refused or error
    raise refused


def _generate(model, task):
    done = []
    with _blaming(f"the graph, with the settings of {_SETTINGS}"):
        settings = _brief(model, 1)
        if settings is None:
            return done
        prompt = _prompt(model)
        model.generate(prompt, **settings)
        done.append(f"two tokens from {'ids' if prompt.ndim == 2 else 'features'}")
    if model.tokenizer is None or prompt.ndim > 2:
        return done
    with _blaming("the tokenizer's files"):
        limit = model.longest_source if task.reads_source else model.longest
        text = _sample(model.tokenizer, None if limit is None else limit - 1)
        if text is not None:
            model.generate(text, **_brief(model, len(model.tokenizer.encode(text))))
            done.append("two tokens from text")
    return done + (_rewrite(model) if task.reads_source else _chat(model))


def _prompt(model):
    """The shortest prompt that a model accepts: one id, or one row of features."""
    features = model.session.ports.first("features")
    if features is not None:
        return np.zeros((1, 1, static_size(features, -1)), numpy_dtype(features))
    return np.array([[1 % model.config["vocab_size"]]], np.int64)


def _brief(model, prompt):
    """Settings for two tokens, or fewer if the context is short. None if no token is possible."""
    prompt = 1 if find_task(model.task).reads_source else prompt
    steps = _STEPS if model.longest is None else min(_STEPS, model.longest - prompt)
    return {"max_new_tokens": steps, "min_new_tokens": 0} if steps > 0 else None


def _chat(model):
    tokenizer, assets = model.tokenizer, model.bundle.assets
    if template_source(assets, tokenizer) is None:
        return []
    template = ChatTemplate.from_assets(assets, tokenizer)
    for messages in _CONVERSATIONS:
        try:
            prompt = template.render(messages)
        except SeqAttnError:
            continue
        settings = _brief(model, len(tokenizer.encode(prompt, special_tokens=False)))
        if settings is None:
            return []
        with _blaming("the chat template"):
            model.chat(messages, **settings)
        return ["two tokens of a chat"]
    return []


def _rewrite(model):
    done, settings = [], _brief(model, 1)
    for name, _ in task_settings(model.config):
        with _blaming(f"task_specific_params of config.json, {name}"):
            if name.startswith("translation_"):
                source, target = name.removeprefix("translation_").split("_to_", 1)
                model.translate(_TEXT, source=source, target=target, **settings)
            elif name == "translation":
                model.translate(_TEXT, **settings)
            else:
                model.summarize(_TEXT, **settings)
        done.append(name)
    return done


def _read(model, method):
    """Give a text to `method`. Without a tokenizer, give token ids to the graph."""
    if model.tokenizer is None:
        return _run(model)
    with _blaming("the tokenizer's or the pooling's files, the labels or the graph"):
        getattr(model, method)(_sample(model.tokenizer))
    return [f"{method} of a text"]


def _run(model):
    """Run a graph of token ids. For other inputs, only the owner knows valid values."""
    length = min(model.longest or _STEPS, _STEPS)
    if len(model.sessions) > 1 or not is_of_texts(model.session.ports):
        return ["loaded"]
    with _blaming("the graph"):
        feeds = {}
        for port in model.session.ports.inputs:
            sizes = [n if isinstance(n, int) else length for n in port.axes]
            shape = [1 if isinstance(n, str) else n for n in port.axes[:1]] + sizes[1:]
            feeds[port.name] = np.full(shape, "mask" in port.role, np.int64)
        model.run(feeds)
    return ["a run on ids"]


@contextlib.contextmanager
def _blaming(place):
    """Turn errors of the block into a BundleError that names the file."""
    try:
        yield
    except SeqAttnError as error:
        raise BundleError(f"{place} cannot be used: {error}") from None
