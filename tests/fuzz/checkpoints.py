"""Seeded cases of Hugging Face directories: small good ones of every family, with faults put in."""

import json
import os
import shutil
import struct
import warnings

import numpy as np
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers import models as tokenizer_models

from keras_seqattn import models, onnx, runtime
from keras_seqattn.models.keys import KEYS, ROPE_KEYS
from keras_seqattn.models.registry import FAMILIES, get_family
from keras_seqattn.weights.directory import INDEX, WEIGHTS, write_directory
from keras_seqattn.weights.safetensors import read_header, read_tensor
from tests.fuzz.harness import attempt
from tests.fuzz.mutations import hostile, json_bytes, mutate_bytes, pick
from tests.helpers import randomise
from tests.onnx.tiny import BART, BERT, BIG_BIRD, DECODERS, ENCODERS, LLAMA, SEQ2SEQ

# Of the models that load, one in so many is exported and used.
_EXPORTED, _SAVED = 10, 5
_FAMILY_KEYS = dict.fromkeys(key for name in FAMILIES for key in get_family(name).defaults)
_CONFIG_KEYS = (
    *(KEYS | _FAMILY_KEYS),
    *("architectures", "model_type", "quantization_config", "pruned_heads", "is_decoder"),
    *("is_encoder_decoder", "torch_dtype", "task_specific_params"),
)
_ROPE = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor", "factor", "attention_factor"),
}
_DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64")
_WORDS = [f"w{index}" for index in range(90)]

PERFORMER = {name: value for name, value in LLAMA.items() if name != "rms_norm_eps"}
PERFORMER |= {"num_random_features": 9}
ROLLING = LLAMA | {"sliding_window": 5, "rolling_cache": True}
# name -> (family, task, configuration)
MODELS = {
    **{name: (family, "causal_lm", config) for name, (family, config) in DECODERS.items()},
    **ENCODERS,
    **{name: (family, None, config) for name, (family, config) in SEQ2SEQ.items()},
    "mistral-rolling": ("mistral", "causal_lm", ROLLING),
    "mbart": ("mbart", None, BART),
    "pegasus": ("pegasus", None, BART),
    "linformer": ("linformer", "embedding", BERT | {"num_projections": 7}),
    "performer": ("performer", "causal_lm", PERFORMER),
    "big_bird-answers": ("big_bird", "question_answering", BERT | BIG_BIRD),
}


def case(random, folder):
    """Load a checkpoint with one to three faults; sometimes save, export and use it."""
    warnings.simplefilter("ignore")
    path = folder / "model"
    shutil.copytree(_original(random, folder.parent), path)
    for _ in range(pick(random, (1, 1, 1, 2, 3))):
        pick(random, _FAULTS)(random, path)
    task = pick(random, (None,) * 9 + ("embedding", "causal_lm", "sequence_classification"))
    model = attempt(models.load, path, task)
    if random.integers(_SAVED) == 0:
        attempt(models.save, model, folder / "saved")
        models.load(folder / "saved", model.task)
    if random.integers(_EXPORTED):
        return "loaded"
    attempt(onnx.export, model, folder / "bundle")
    use(runtime.load(folder / "bundle", check=True))
    return "exported"


def use(bundle):
    """What a verified bundle is for must work, with texts where it has a tokenizer."""
    if bundle.task in ("causal_lm", "seq2seq_lm"):
        bundle.generate([3, 4, 5], max_new_tokens=3)
    else:
        names = [port.name for port in bundle.session.get_inputs()]
        bundle.run({name: np.ones((1, 4), "int64") for name in names})
    if bundle.tokenizer is None:
        return
    text = "w1 w2 w3"
    if bundle.task in ("causal_lm", "seq2seq_lm"):
        bundle.generate(text, max_new_tokens=3)
    elif bundle.task == "embedding":
        bundle.embed([text])
    elif bundle.task == "sequence_classification":
        bundle.classify([text])
    elif bundle.task == "token_classification":
        bundle.tag([text])


def _original(random, folder):
    """A good checkpoint of a random family, made once: in one file or in shards."""
    name = pick(random, tuple(MODELS))
    kind = pick(random, ("whole", "whole", "shards"))
    path = folder / "originals" / f"{name}-{kind}"
    if path.exists():
        return path
    family, task, config = MODELS[name]
    model = randomise(models.build(family, task, **config), seed=3)
    model.assets = _assets(model)
    made = path.with_name(f"{path.name}-{os.getpid()}")
    models.save(model, made)
    if kind == "shards":
        _split(made)
    made.rename(path)
    return path


def _split(path):
    """The same weights in several files and an index."""
    shapes = read_header(path / WEIGHTS)
    tensors = {name: read_tensor(path / WEIGHTS, name) for name in shapes}
    (path / WEIGHTS).unlink()
    config = json.loads((path / "config.json").read_text())
    write_directory(path, config, {}, shapes, tensors.__getitem__, shard_bytes=40_000)


def _assets(model):
    special = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    vocabulary = special | {word: 4 + index for index, word in enumerate(_WORDS)}
    tokenizer = Tokenizer(tokenizer_models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    settings = {"pad_token": "<pad>", "eos_token": "</s>", "model_max_length": 64}
    assets = {"tokenizer.json": json.loads(tokenizer.to_str()), "tokenizer_config.json": settings}
    if model.task in ("causal_lm", "seq2seq_lm"):
        settings["chat_template"] = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
        assets["generation_config.json"] = {
            "eos_token_id": [2, 5],
            "pad_token_id": 0,
            "do_sample": False,
            "repetition_penalty": 1.1,
            "bad_words_ids": [[7], [8, 9]],
        }
        if model.task == "seq2seq_lm":
            assets["generation_config.json"] |= {"decoder_start_token_id": 1, "num_beams": 2}
    if model.task == "embedding":
        parts = {"": "Transformer", "1_Pooling": "Pooling"}
        assets["modules.json"] = [
            {"idx": index, "path": path, "type": f"sentence_transformers.models.{kind}"}
            for index, (path, kind) in enumerate(parts.items())
        ]
        assets["1_Pooling/config.json"] = {"pooling_mode_mean_tokens": True}
        assets["sentence_bert_config.json"] = {"max_seq_length": 32}
    return {name: json.dumps(value).encode() for name, value in assets.items()}


def _change_config(random, path):
    _change_json(random, path / "config.json", _CONFIG_KEYS)


def _change_one_value(random, path):
    """The most telling fault: one key that the family reads has another value."""
    config = _read(path / "config.json")
    known = (
        [key for key in config if key in KEYS | _FAMILY_KEYS] if isinstance(config, dict) else []
    )
    if known:
        config[pick(random, known)] = hostile(random)
        (path / "config.json").write_bytes(json.dumps(config).encode())


def _change_sizes(random, path):
    """A size that is too large, or does not fit the others."""
    config = _read(path / "config.json")
    sizes = [key for key, value in config.items() if type(value) is int] if config else []
    if sizes:
        key = pick(random, sizes)
        sizes = (config[key] + 1, 2 * config[key], 1, 0, -1, 1000, 10**5, 10**6, 10**9, 2**31 - 1)
        config[key] = pick(random, (*sizes, 10**12, 10**30))
        (path / "config.json").write_text(json.dumps(config))


def _change_rope(random, path):
    config = _read(path / "config.json")
    if config:
        rope = config.get("rope_parameters")
        rope = dict(rope) if isinstance(rope, dict) else {}
        kind = rope["rope_type"] = pick(random, tuple(_ROPE))
        for key in ROPE_KEYS:
            if random.random() < (0.8 if key in _ROPE[kind] else 0.02):
                good = [2.0] * 8 if key.endswith(("short_factor", "long_factor")) else 2.0
                bad = (0.5, 8, 64, 1, 1e-9, [0.0] * 8, [1.0] * 7, None, hostile(random))
                rope[key] = good if random.random() < 0.7 else pick(random, bad)
        config["rope_parameters"] = rope
        (path / "config.json").write_text(json.dumps(config))


def _change_asset(random, path):
    files = set(path.rglob("*.json")) - {path / "config.json", path / INDEX}
    if files:
        _change_json(random, pick(random, sorted(files)))


def _change_index(random, path):
    if (path / INDEX).is_file():
        _change_json(random, path / INDEX, ("/etc/passwd", "../model.safetensors", "config.json"))


def _change_header(random, path):
    """The header of one weights file as JSON, with its length set right, so that it is parsed."""
    file, header, data = _open_weights(random, path)
    if header:
        _write_weights(file, json_bytes(random, header, ("__metadata__",)), data)


def _change_tensor(random, path):
    """One entry of the header has another type, shape, place or name."""
    file, header, data = _open_weights(random, path)
    names = [name for name, entry in (header or {}).items() if _is_entry(entry)]
    if not names:
        return
    name = pick(random, names)
    entry = header[name] = dict(header[name])
    change = int(random.integers(6))
    if change == 0:
        entry["dtype"] = pick(random, _DTYPES)
    elif change == 1:
        shape = entry["shape"]
        entry["shape"] = pick(random, (shape[::-1], [1, *shape], [2**40, 2**40], [0], []))
    elif change == 2:
        entry["data_offsets"] = pick(random, ([0, 0], [0, 2**63], [1.0, 2.0], [-4, 4], [True, 8]))
    elif change == 3:
        new = (name[:-1], "x" * 10**5, f"{name}.0", name.replace(".1.", f".{10**30}."))
        header[pick(random, new)] = header.pop(name)
    elif change == 4:
        length = np.prod(entry["shape"], dtype=int)
        entry["dtype"], entry["shape"] = "F16", [int(2 * length)]
    else:
        start = int(entry["data_offsets"][0])
        worst = pick(random, (np.nan, np.inf, -np.inf, 3e38, -1e30))
        data = data[:start] + np.float32(worst).tobytes() + data[start + 4 :]
    _write_weights(file, json.dumps(header).encode(), data)


def _damage_bytes(random, path):
    files = sorted(f for f in path.rglob("*") if f.is_file())
    file = pick(random, files)
    data = file.read_bytes()
    if file.suffix == ".safetensors":
        # Most of a weights file is weights, where a changed byte is only another number.
        head = int(pick(random, (8, 64, 2000, len(data))))
        file.write_bytes(mutate_bytes(random, data[:head]) + data[head:])
    else:
        file.write_bytes(mutate_bytes(random, data))


def _replace_file(random, path):
    """Something else stands where a file was."""
    file = pick(random, sorted(f for f in path.rglob("*") if f.is_file()))
    kind = int(random.integers(6))
    file.unlink()
    if kind == 1:
        file.mkdir()
    elif kind == 2:
        os.mkfifo(file)
    elif kind == 3:
        file.symlink_to("/dev/zero")
    elif kind == 4:
        file.symlink_to(file.name)
    elif kind == 5:
        file.write_bytes(b"")


def _remove_tensor(random, path):
    file, header, data = _open_weights(random, path)
    names = [name for name, entry in (header or {}).items() if _is_entry(entry)]
    if not names:
        return
    name = pick(random, names)
    start, end = header.pop(name)["data_offsets"]
    for other in names:
        if other != name:
            offsets = header[other]["data_offsets"]
            header[other]["data_offsets"] = [x - (end - start) * (x >= end) for x in offsets]
    _write_weights(file, json.dumps(header).encode(), data[:start] + data[end:])


_FAULTS = (
    *(_change_config, _change_one_value, _change_one_value, _change_sizes, _change_rope),
    *(_change_asset, _change_asset, _change_index, _change_header, _change_tensor),
    *(_damage_bytes, _replace_file, _remove_tensor),
)


def _read(file):
    """The object of a JSON file, or None if a fault before has left another."""
    try:
        value = json.loads(file.read_bytes()) if file.is_file() else None
    except (ValueError, RecursionError, OSError):
        return None
    return value if isinstance(value, dict) else None


def _change_json(random, file, keys=None):
    try:
        value = json.loads(file.read_bytes()) if file.is_file() else None
    except (ValueError, RecursionError):
        return
    if isinstance(value, dict | list):
        file.write_bytes(json_bytes(random, value, keys))


def _open_weights(random, path):
    """(file, header, data) of one weights file; no header if a fault before has damaged it."""
    files = sorted(file for file in path.glob("*.safetensors") if file.is_file())
    if not files or any(file.is_symlink() for file in files):
        return None, None, b""
    file = pick(random, files)
    content = file.read_bytes()
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length])
    except (struct.error, ValueError, OverflowError, RecursionError):
        return None, None, b""
    return file, header if isinstance(header, dict) else None, content[8 + length :]


def _is_entry(entry):
    """Whether an entry of a header is one of a tensor, as it was written."""
    try:
        start, end = entry["data_offsets"]
        return end - start == 4 * np.prod(entry["shape"], dtype=int)
    except (TypeError, KeyError, ValueError, OverflowError):
        return False


def _write_weights(file, header, data):
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)
