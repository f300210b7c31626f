"""Seeded cases of GGUF files: a small good llama, faults in its metadata, tensors and bytes."""

import os
import struct
import warnings

import gguf
import numpy as np
from tokenizers import pre_tokenizers

from keras_seqattn import models, onnx, runtime
from tests.fuzz.checkpoints import use
from tests.fuzz.harness import attempt
from tests.fuzz.mutations import NUMBERS, STRINGS, mutate_bytes, pick

_EXPORTED = 10
_WIDTH, _HEADS, _GROUPS, _HIDDEN, _LAYERS = 64, 4, 2, 96, 2
_HEAD_DIM = _WIDTH // _HEADS
_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64 = 4, 5, 6, 7, 8, 9, 10
_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *sorted(pre_tokenizers.ByteLevel.alphabet()),
    *("w1", "Ġw", "Ġw1"),
]
_MORE_KEYS = (
    *("llama.expert_count", "llama.attention.sliding_window", "llama.logit_scale"),
    *("llama.attention.key_length", "llama.rope.scaling.type", "llama.rope.scaling.factor"),
    *("llama.rope.scaling.original_context_length", "llama.rope.scaling.attn_factor"),
    *("general.alignment", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.unknown_token_id"),
    *("tokenizer.ggml.add_bos_token", "llama.vocab_size", "tokenizer.chat_template"),
)
_BLOCKS = {"blk.{i}.attn_norm": (_WIDTH,), "blk.{i}.ffn_norm": (_WIDTH,)} | {
    f"blk.{{i}}.{name}": shape
    for name, shape in {
        "attn_q": (_WIDTH, _WIDTH),
        "attn_k": (_GROUPS * _HEAD_DIM, _WIDTH),
        "attn_v": (_GROUPS * _HEAD_DIM, _WIDTH),
        "attn_output": (_WIDTH, _WIDTH),
        "ffn_gate": (_HIDDEN, _WIDTH),
        "ffn_up": (_HIDDEN, _WIDTH),
        "ffn_down": (_WIDTH, _HIDDEN),
    }.items()
}


def case(random, folder):
    """Load a GGUF file with one to three faults; sometimes export and use it."""
    warnings.simplefilter("ignore")
    path = folder / "model.gguf"
    entries = metadata(pick(random, ("smollm", "llama-bpe", "gpt-2")))
    tensors = tensors_of(pick(random, ("F32", "F16", "BF16", "Q8_0", "Q4_0")))
    head = {}
    for _ in range(pick(random, (1, 1, 1, 2, 3))):
        pick(random, _FAULTS)(random, entries, tensors, head)
    content, data_start = serialise(entries, tensors, head)
    if random.random() < 0.2:
        content = mutate_bytes(random, content[:data_start]) + content[data_start:]
    path.write_bytes(content)
    if random.random() < 0.02:
        _replace(random, path)
    model = attempt(models.load, path, pick(random, (None,) * 9 + ("embedding", "masked_lm")))
    if random.integers(_EXPORTED):
        return "loaded"
    attempt(onnx.export, model, folder / "bundle")
    use(runtime.load(folder / "bundle", check=True))
    return "exported"


def metadata(split="smollm"):
    """Lists [key, kind, value], as of a converted llama."""
    types = [3, 3, 3] + [1] * (len(_TOKENS) - 3)
    return [
        ["general.architecture", _STRING, "llama"],
        ["llama.block_count", _U32, _LAYERS],
        ["llama.context_length", _U32, 128],
        ["llama.embedding_length", _U32, _WIDTH],
        ["llama.feed_forward_length", _U32, _HIDDEN],
        ["llama.attention.head_count", _U32, _HEADS],
        ["llama.attention.head_count_kv", _U32, _GROUPS],
        ["llama.attention.layer_norm_rms_epsilon", _F32, 1e-5],
        ["llama.rope.freq_base", _F32, 10000.0],
        ["llama.rope.dimension_count", _U32, _HEAD_DIM],
        ["tokenizer.ggml.model", _STRING, "gpt2"],
        ["tokenizer.ggml.pre", _STRING, split],
        ["tokenizer.ggml.tokens", _ARRAY, (_STRING, list(_TOKENS))],
        ["tokenizer.ggml.token_type", _ARRAY, (_I32, types)],
        ["tokenizer.ggml.merges", _ARRAY, (_STRING, ["w 1", "Ġ w", "Ġw 1"])],
        ["tokenizer.ggml.bos_token_id", _U32, 1],
        ["tokenizer.ggml.eos_token_id", _U32, 2],
        ["tokenizer.ggml.padding_token_id", _U32, 2],
        ["tokenizer.chat_template", _STRING, "{{ messages[0].content }}"],
    ]


def tensors_of(kind="F32"):
    """Dicts with name, shape (row-major), kind and bytes; `kind` is that of the matrices."""
    kind = gguf.GGMLQuantizationType[kind]
    shapes = {"token_embd": (len(_TOKENS), _WIDTH), "output_norm": (_WIDTH,)}
    for index in range(_LAYERS):
        shapes |= {name.format(i=index): shape for name, shape in _BLOCKS.items()}
    weights = np.random.default_rng(1)
    tensors = []
    for name, shape in shapes.items():
        value = weights.normal(size=shape, scale=shape[-1] ** -0.5).astype("float32")
        own = kind if value.ndim == 2 else gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(value, own).tobytes()
        tensors.append({"name": f"{name}.weight", "shape": shape, "kind": int(own), "data": data})
    return tensors


def serialise(entries, tensors, head=None):
    """(bytes of a file, where its data begins); `head` has what its first fields say otherwise."""
    head = {"magic": b"GGUF", "version": 3} | (head or {})
    counts = head.get("tensors", len(tensors)), head.get("entries", len(entries))
    out = head["magic"] + struct.pack("<IQQ", head["version"], *counts)
    for key, kind, value in entries:
        out += _text(key) + struct.pack("<I", kind) + _value(kind, value)
    data = b""
    for tensor in tensors:
        offset = tensor.get("offset", len(data))
        shape = [size % 2**64 for size in reversed(tensor["shape"])]
        out += _text(tensor["name"]) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        out += struct.pack("<IQ", tensor["kind"] % 2**32, offset % 2**64)
        data += tensor["data"] + b"\0" * (-len(tensor["data"]) % 32)
    out += b"\0" * (-len(out) % 32)
    return out + data, len(out)


def _value(kind, value):
    """A value as its kind has it; a number that does not fit wraps round."""
    if kind == _STRING:
        return _text(str(value))
    if kind == _ARRAY:
        item, values = value if isinstance(value, tuple) else (_U32, [1, 2])
        return struct.pack("<IQ", item, len(values)) + b"".join(_value(item, x) for x in values)
    code = _FORMATS.get(kind)
    if code is None:
        return b"\0" * 8
    if isinstance(value, str | tuple):
        value = len(value)
    if code in "fd":
        with np.errstate(all="ignore"):
            return np.array(value, dtype="<f4" if code == "f" else "<f8").tobytes()
    if code == "?":
        return bytes([int(value == value and value != 0)])
    whole = int(value) if np.isfinite(float(value)) else 0
    bits = 8 * struct.calcsize(code)
    return (whole % 2**bits).to_bytes(bits // 8, "little")


def _text(text):
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(data)) + data


def _change_value(random, entries, tensors, head):
    """Another value of the same kind."""
    entry = pick(random, entries)
    # A change before this one may have left a value of another kind.
    if isinstance(entry[2], str | bytes):
        entry[2] = pick(random, (entry[2][:-1], 2 * entry[2], *STRINGS))
    elif isinstance(entry[2], int | float):
        near = (entry[2] + 1, entry[2] - 1, 2 * entry[2], entry[2] // 2, 10 * entry[2], -1)
        entry[2] = pick(random, (*near, *NUMBERS))


def _change_kind(random, entries, tensors, head):
    """A value of another kind: a text for a number, a list, a list of lists."""
    entry = pick(random, entries)
    entry[1] = pick(random, (*_FORMATS, _STRING, _ARRAY, 13, 2**32 - 1))
    if entry[1] == _ARRAY:
        item = pick(random, (_U32, _F32, _STRING, _BOOL, _ARRAY, 13))
        values = {_STRING: ["a", "b"], _ARRAY: [(_U32, [1])] * 2}.get(item, [1, 2])
        entry[2] = (item, values * int(pick(random, (0, 1, 4))))
    elif entry[1] == _STRING:
        entry[2] = pick(random, STRINGS)


def _change_list(random, entries, tensors, head):
    """Tokens, their types or merges that are too many, too few, twice, or strange."""
    entry = pick(random, [entry for entry in entries if entry[1] == _ARRAY] or entries)
    if not isinstance(entry[2], tuple):
        return
    item, values = entry[2]
    values = list(values)
    place = int(random.integers(len(values))) if values else 0
    change = int(random.integers(6))
    if change == 0 and values:
        values[place] = pick(random, STRINGS) if item == _STRING else pick(random, NUMBERS)
    elif change == 1:
        del values[place : place + int(pick(random, (1, 5, 1000)))]
    elif change == 2 and values:
        values.insert(place, values[0])
    elif change == 3:
        more = [f"n{index}" for index in range(int(pick(random, (1, 50, 20000))))]
        values += more if item == _STRING else [3] * len(more)
    elif change == 4 and item != _STRING:
        values = [pick(random, (3, 4, 0, -1, 99))] * len(values)
    else:
        values = values[::-1]
    entry[2] = (item, values)


def _change_entries(random, entries, tensors, head):
    """An entry more, less, twice, or under another name."""
    entry, change = pick(random, entries), int(random.integers(4))
    if change == 0 and len(entries) > 1:
        entries.remove(entry)
    elif change == 1:
        entries.append(list(entry))
    elif change == 2:
        entry[0] = pick(random, (*_MORE_KEYS, *STRINGS))
    else:
        kind = pick(random, (_U32, _F32, _BOOL, _STRING, _ARRAY, _U64))
        value = (_F32, [1.0]) if kind == _ARRAY else pick(random, (1, 2, 32, 0.5, *NUMBERS))
        if kind == _STRING:
            value = pick(random, ("yarn", "linear", *STRINGS))
        entries.append([pick(random, _MORE_KEYS), kind, value])


def _change_tensor(random, entries, tensors, head):
    if not tensors:
        return
    tensor, change = pick(random, tensors), int(random.integers(8))
    if change == 0:
        shape, place = list(tensor["shape"]), int(random.integers(len(tensor["shape"])))
        shape[place] = pick(
            random, (0, 1, shape[place] + 32, 2 * shape[place], 2**40, 2**63, 2**64 - 1)
        )
        tensor["shape"] = shape
    elif change == 1:
        shape = tensor["shape"]
        tensor["shape"] = pick(random, (shape[::-1], (1, *shape), (*shape, 1), (), (1,) * 9))
    elif change == 2:
        tensor["kind"] = pick(random, (*range(42), 99, 2**32 - 1))
    elif change == 3:
        tensor["offset"] = pick(random, (0, 1, 32, 10**6, 2**62, 2**63, 2**64 - 1, 2**64 - 32))
    elif change == 4:
        names = ("blk.9.attn_q.weight", "blk.0.attn_q.bias", "output.weight", "x", "x" * 10**5)
        tensor["name"] = pick(random, (*names, f"blk.{10**30}.attn_q.weight", "rope_freqs.weight"))
    elif change == 5:
        tensors.remove(tensor)
    elif change == 6:
        tensors.append(dict(tensor))
    else:
        size = pick(random, (_HEAD_DIM // 2, _HEAD_DIM // 2, 3))
        factors = np.full(size, pick(random, (1.0, 8.0, 0.0, -1.0, np.nan, 1e38)), "float32")
        name = pick(random, ("rope_freqs", "rope_factors_long", "rope_factors_short"))
        tensors.append(
            {"name": f"{name}.weight", "shape": (size,), "kind": 0, "data": factors.tobytes()}
        )


def _change_data(random, entries, tensors, head):
    """Blocks that decode to no numbers, or to very large ones."""
    if tensors:
        tensor = pick(random, tensors)
        data = bytearray(tensor["data"])
        start = int(random.integers(len(data) // 2)) // 2 * 2
        data[start : start + 8] = pick(random, (b"\xff", b"\x7c", b"\x7f\x80", b"\0")) * 8
        tensor["data"] = bytes(data[: len(tensor["data"])])


def _change_head(random, entries, tensors, head):
    change = int(random.integers(4))
    if change == 0:
        head["magic"] = pick(random, (b"GGML", b"\0\0\0\0", b"FUGG"))
    elif change == 1:
        head["version"] = pick(random, (0, 1, 2, 4, 2**32 - 1, 3 << 24))
    elif change == 2:
        head["tensors"] = pick(random, (0, 1, len(tensors) + 1, 10**6, 2**63, 2**64 - 1))
    else:
        head["entries"] = pick(random, (0, 1, len(entries) + 1, 10**6, 2**63, 2**64 - 1))


_FAULTS = (
    *(_change_value, _change_value, _change_kind, _change_kind, _change_list, _change_list),
    *(_change_entries, _change_entries, _change_tensor, _change_tensor, _change_data, _change_head),
)


def _replace(random, path):
    path.unlink()
    pick(random, (path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to(path), path.touch))()
