"""Makes prompts of conversations with the chat template of a checkpoint (Jinja)."""

from keras_seqattn.errors import BundleError, InputError, first_line
from keras_seqattn.runtime.template_budget import Budget, deep_size

FILE = "chat_template.jinja"
# The conversation of a user may be long, but it has a limit.
_INPUT_BYTES = 1 << 28
_OUTPUT_BYTES = 1 << 20
_OUTPUT_PER_BYTE = 16


class ChatTemplate:
    """The chat template of a checkpoint. It gives the same text as in transformers.

    Templates may come from strangers. So they run in Jinja's sandbox and may call only listed
    functions. Every operation has a price, and the budget limits time and memory.

    Args:
        source: str, the template.
        special_tokens: dict of name -> text for the template (bos_token, eos_token, ...).

    Raises:
        BundleError: the template is not valid, or jinja2 is not installed.
    """

    def __init__(self, source, special_tokens):
        try:
            from keras_seqattn.runtime.template_environment import compile_template
        except ImportError:
            raise BundleError("chat templates need jinja2: pip install jinja2") from None
        self._special_tokens = special_tokens
        try:
            self._template = compile_template(source)
        except Exception as error:  # jinja2 and Python's compiler raise many kinds of errors
            raise BundleError(f"the chat template is not valid: {first_line(error)}") from None

    @classmethod
    def from_assets(cls, assets, tokenizer):
        """The template in chat_template.jinja or in tokenizer_config.json.

        Raises:
            BundleError: the checkpoint has no template, or the template is not valid.
        """
        source = template_source(assets, tokenizer)
        if source is None:
            raise BundleError("this checkpoint has no chat template: use generate instead of chat")
        return cls(source, tokenizer.special_tokens())

    def render(self, messages, add_generation_prompt=True):
        """The prompt of a conversation.

        Args:
            messages: list of {"role": ..., "content": ...}, or a str for one message of the user.
            add_generation_prompt: bool, whether the prompt ends with the start of an answer.

        Raises:
            InputError: messages are not valid, or the template refuses them or needs too much.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        _check_messages(messages)
        values = {"tools": None, "documents": None, **self._special_tokens, "messages": messages}
        values["add_generation_prompt"] = add_generation_prompt
        try:
            return self._render(values)
        except Exception as error:  # a template may raise every error that Python can raise
            reason = first_line(error)
            raise InputError(f"the chat template refuses these messages: {reason}") from None

    def _render(self, values):
        size = deep_size(values, _INPUT_BYTES)
        pieces, left = [], _OUTPUT_BYTES + _OUTPUT_PER_BYTE * size
        with Budget(size).spent_here():
            for piece in self._template.generate(values):
                left -= len(piece)
                if left < 0:
                    raise InputError("it makes too much text")
                pieces.append(piece)
        text = "".join(pieces)
        text.encode()  # a tokenizer refuses half of a surrogate pair
        return text


def template_source(assets, tokenizer):
    """The text of a checkpoint's chat template, or None.

    Args:
        assets: dict file name -> bytes.
        tokenizer: Tokenizer.

    Raises:
        BundleError: the file is not UTF-8 text, or tokenizer_config.json does not hold a template.
    """
    if FILE in assets:
        try:
            return bytes(assets[FILE]).decode("utf-8") or None
        except UnicodeDecodeError as error:
            raise BundleError(f"{FILE} is not UTF-8 text: {error}") from None
    source = tokenizer.config.get("chat_template")
    if isinstance(source, list) and all(_is_named(entry) for entry in source):
        # Older checkpoints have several templates with names.
        named = {entry["name"]: entry["template"] for entry in source}
        source = named.get("default", next(iter(named.values()), None))
    if source is not None and not isinstance(source, str):
        raise BundleError(
            "chat_template in tokenizer_config.json must be a text, or a list of objects with name "
            f"and template, not {type(source).__name__}"
        )
    return source or None


def _is_named(entry):
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("name"), str)
        and isinstance(entry.get("template"), str)
    )


def _check_messages(messages):
    if not isinstance(messages, (list, tuple)) or not messages:
        raise InputError(
            "messages must be a text or a list of at least one {'role': ..., 'content': ...}, not "
            f"{type(messages).__name__}"
        )
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise InputError(f"a message must have role and content: {repr(message)[:200]}")
