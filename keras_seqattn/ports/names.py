"""The names of inputs and outputs, in checkpoints and in files of other exporters.

Only this module writes the names of caches and states, and only this module parses them.
"""

import dataclasses
import re

from keras_seqattn.ports.port import Port

BATCH, TOKENS = "batch_size", "sequence_length"
PAST, TOTAL = "past_sequence_length", "total_sequence_length"
SOURCE, TARGET = "encoder_sequence_length", "decoder_sequence_length"
PAST_SOURCE, PAST_TARGET = "past_encoder_sequence_length", "past_decoder_sequence_length"
TOTAL_TARGET = "total_decoder_sequence_length"
# Dimension of the mask of a decoder -> the two dimensions whose sum it is.
TOTALS = {TOTAL: (PAST, TOKENS)}
TARGET_TOTALS = {TOTAL_TARGET: (PAST_TARGET, TARGET)}

# The names of caches as patterns for other runtimes: %d is the number of the layer.
CACHE_FORMS = {
    f"{side}_{part}": f"{name}.%d.{part}"
    for side, name in (("past", "past_key_values"), ("present", "present"))
    for part in ("key", "value")
}
_STATE = "past_states.{index}.{name}"
_LENGTH = "past_states.length"
_PAST = re.compile(r"(past_key_values|past_states)\.\d+\.(?:(encoder|decoder)\.)?[^.]+")
_PRESENT_CACHE, _PRESENT_STATE = "present.", "present_states."
_PRESENT = {"past_key_values.": _PRESENT_CACHE, "past_states.": _PRESENT_STATE}
_ROLES = {
    "input_ids": "tokens",
    "decoder_input_ids": "targets",
    "attention_mask": "mask",
    "encoder_attention_mask": "source_mask",
    "global_attention_mask": "global_mask",
    "token_type_ids": "token_types",
    "position_ids": "positions",
    "pixel_values": "pixels",
    "input_features": "features",
    "cache_position": "slot",
    "encoder_hidden_states": "context",
    "encoder_keys": "context",
}
_OUTPUT_ROLES = {
    "logits": "logits",
    "start_logits": "logits",
    "end_logits": "logits",
    "last_hidden_state": "hidden_states",
    "pooler_output": "pooled",
    "encoder_keys": "context",
}
# Output of an encoder -> the input of each step of its decoder that takes it.
ENCODED, CONTEXT, CONTEXT_KEYS = "last_hidden_state", "encoder_hidden_states", "encoder_keys"
_CONTEXTS = {CONTEXT: ENCODED, CONTEXT_KEYS: CONTEXT_KEYS}


def cache_names(index, part, side=None):
    """The names of a layer's past and present keys ("key") or values ("value").

    Args:
        index: number of the layer.
        part: "key" or "value".
        side: None, or for an encoder-decoder the side of the cache: "encoder" or "decoder".
    """
    path = f"{index}.{part}" if side is None else f"{index}.{side}.{part}"
    return f"past_key_values.{path}", f"present.{path}"


def state_names(index, name):
    """The names of the past and the present state of a layer."""
    past = _STATE.format(index=index, name=name)
    return past, present_of(past)


def length_names():
    """The names of the number of tokens that a streaming decoder has read, before and after."""
    return _LENGTH, present_of(_LENGTH)


def present_of(past):
    """The name of the output that becomes the past with the name `past`."""
    prefix = next(prefix for prefix in _PRESENT if past.startswith(prefix))
    return _PRESENT[prefix] + past.removeprefix(prefix)


def kept_names(paths):
    """Names of inputs for variables that layers keep between calls, by the paths of variables."""
    names = []
    for path in paths:
        count = paths[: len(names)].count(path)
        names.append(f"{path}_{count}" if count else path)
    return names


def follower(name):
    """The name of the output with the new value of an input: `a/state` -> `a/new_state`."""
    layer, _, last = name.rpartition("/")
    return f"{layer}/new_{last}" if layer else f"new_{last}"


def output_role(name):
    """The usual role of an output with this name, if the output becomes no input."""
    if name.startswith(_PRESENT_STATE):
        return "state"
    if name.startswith(_PRESENT_CACHE):
        return "source_cache" if ".encoder." in name else "cache"
    return _OUTPUT_ROLES.get(name, "data")


def guess(port):
    """The input `port`, with the role that its name usually has in checkpoints.

    This is for files and models without declarations.
    """
    if port.name == _LENGTH:
        return dataclasses.replace(port, role="length", follows=present_of(_LENGTH))
    past = _PAST.fullmatch(port.name)
    if past:
        role = "cache" if past[1] == "past_key_values" else "state"
        role = "source_cache" if past[2] == "encoder" else role
        return dataclasses.replace(port, role=role, follows=present_of(port.name))
    role = _ROLES.get(port.name, "data")
    if role in ("mask", "source_mask", "global_mask"):
        port = dataclasses.replace(port, least=0, below=2)
    return dataclasses.replace(port, role=role, follows=_CONTEXTS.get(port.name))


def guess_outputs(outputs, inputs):
    """tuple of `Port`: the outputs, with the roles of the inputs that they become, or by name."""
    roles = {port.follows: port.role for port in inputs if port.follows is not None}
    return tuple(
        dataclasses.replace(port, role=roles.get(port.name, output_role(port.name)))
        for port in outputs
    )


def in_order(names):
    """The names, sorted so that numbers are in order: layer 2 before layer 10."""

    def key(name):
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted(names, key=key)


def without_numbers(name):
    """The name with `*` for each number, so that all layers of a stack have the same name."""
    return re.sub(r"\d+", "*", name)


def tokens(vocabulary_size, name="input_ids", role="tokens", length=TOKENS):
    """The `Port` of token ids int64 (b, t)."""
    return Port(name, role, (BATCH, length), "int64", 0, vocabulary_size)


def mask(name="attention_mask", role="mask", length=TOKENS):
    """The `Port` of a mask int64 (b, t), 1 = real token."""
    return Port(name, role, (BATCH, length), "int64", 0, 2)


def token_types(count):
    """The `Port` of token types int64 (b, t): for each token, the number of its text."""
    return Port("token_type_ids", "token_types", (BATCH, TOKENS), "int64", 0, count)


def global_mask(most, length=TOKENS):
    """The `Port` of the mask of global tokens int64 (b, t), with at most `most` per row."""
    name, axes = "global_attention_mask", (BATCH, length)
    return Port(name, "global_mask", axes, "int64", 0, 2, most_ones=most)


def targets(vocabulary_size):
    """The `Port` of the ids for the decoder of a whole encoder-decoder, int64 (b, t)."""
    return tokens(vocabulary_size, "decoder_input_ids", "targets", TARGET)


def source_mask():
    """The `Port` of the mask of the encoder's input, int64 (b, s)."""
    return mask("encoder_attention_mask", "source_mask", SOURCE)


def slot():
    """The `Port` of the place of the first new token in a cache of fixed size."""
    return Port("cache_position", "slot", (1,), "int64", least=0)


def context(width, dtype, name=CONTEXT):
    """The `Port` of the encoder's output that a decoder reads, float (b, s, m)."""
    return Port(name, "context", (BATCH, SOURCE, width), dtype, follows=_CONTEXTS[name])


def source_ports(ports):
    """list of the inputs of a whole encoder-decoder that go to its encoder."""
    return [port for port in ports.inputs if port.role != "targets"]


def renamed_limits(ports, dimension, name):
    """dict with the limit of a dimension under another name; empty if there is no limit."""
    return {name: ports.limits[dimension]} if dimension in ports.limits else {}
