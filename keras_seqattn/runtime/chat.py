"""Conversations turned into prompts by the checkpoint's chat template (Jinja)."""

import datetime
import json

from keras_seqattn.errors import BundleError, InputError


class ChatTemplate:
    """A checkpoint's chat template, rendered in Jinja's sandbox as transformers renders it.

    Args:
        source: str, the template.
        special_tokens: dict name -> text, visible to the template (bos_token, eos_token, ...).
    """

    def __init__(self, source, special_tokens):
        try:
            from jinja2.exceptions import TemplateError
            from jinja2.ext import loopcontrols
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError:
            raise BundleError("chat templates need jinja2: pip install jinja2") from None
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        self._error = TemplateError
        self._special_tokens = special_tokens
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise BundleError(f"the chat template is not valid Jinja: {error}") from None

    @classmethod
    def from_assets(cls, assets, tokenizer):
        """The template of chat_template.jinja, or the one inside tokenizer_config.json.

        Raises:
            BundleError: the checkpoint has none, or jinja2 is not installed.
        """
        source = tokenizer.config.get("chat_template")
        if "chat_template.jinja" in assets:
            source = bytes(assets["chat_template.jinja"]).decode("utf-8")
        if isinstance(source, list):
            named = {entry["name"]: entry["template"] for entry in source}
            source = named.get("default", next(iter(named.values()), None))
        if not source:
            raise BundleError("this checkpoint has no chat template: use generate instead of chat")
        return cls(source, tokenizer.special_tokens())

    def render(self, messages, add_generation_prompt=True):
        """The prompt of a conversation.

        Args:
            messages: list of {"role": ..., "content": ...}, or a str, one message of the user.
            add_generation_prompt: bool, whether the prompt ends where the assistant answers.

        Raises:
            InputError: messages are malformed or the template refuses them.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        for message in messages:
            if not isinstance(message, dict) or not {"role", "content"} <= set(message):
                raise InputError(f"a message must have role and content: {message!r}")
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except (self._error, TypeError) as error:
            raise InputError(f"the chat template refuses these messages: {error}") from None


def _to_json(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message):
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)
