import json
import struct
import sys

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer

from keras_seqattn import models
from keras_seqattn.errors import CheckpointError, SeqAttnError
from keras_seqattn.weights.formats import open_checkpoint
from tests.fuzz import gguf_files

pytestmark = pytest.mark.backend_free

WIDTH, HEADS, GROUPS, HEAD_DIM, HIDDEN, LAYERS = 64, 4, 2, 16, 96, 2
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "ab", "1", "2", "12", "Ġ", "Ġa"]
LAYER_SHAPES = {
    "attn_norm": (WIDTH,),
    "attn_q": (HEADS * HEAD_DIM, WIDTH),
    "attn_k": (GROUPS * HEAD_DIM, WIDTH),
    "attn_v": (GROUPS * HEAD_DIM, WIDTH),
    "attn_output": (WIDTH, HEADS * HEAD_DIM),
    "ffn_norm": (WIDTH,),
    "ffn_gate": (HIDDEN, WIDTH),
    "ffn_up": (HIDDEN, WIDTH),
    "ffn_down": (WIDTH, HIDDEN),
}


def _tensors():
    shapes = {"token_embd.weight": (len(TOKENS), WIDTH), "output_norm.weight": (WIDTH,)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in LAYER_SHAPES.items()}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _write(path, tensors=None, kind="F32", metadata=None, architecture="llama"):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(GROUPS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["a b", "1 2", "Ġ a"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    for key, value in (metadata or {}).items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
        add[bool] = writer.add_bool
        add[type(value)](key, value)
    kind = gguf.GGMLQuantizationType[kind]
    for name, value in (_tensors() if tensors is None else tensors).items():
        stored = gguf.quants.quantize(value, kind) if value.ndim == 2 else value
        writer.add_tensor(name, stored, raw_dtype=kind if value.ndim == 2 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _stored(value, kind):
    """What is left of a matrix after quantisation."""
    kind = gguf.GGMLQuantizationType[kind]
    return gguf.quants.dequantize(gguf.quants.quantize(value, kind), kind)


def test_configuration_and_names(tmp_path):
    checkpoint = open_checkpoint(_write(tmp_path / "x.gguf"))
    config = checkpoint.config
    expected = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": len(TOKENS),
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": GROUPS,
        "head_dim": HEAD_DIM,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
        "tie_word_embeddings": True,
        "attention_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    assert {key: config[key] for key in expected} == expected
    assert len(checkpoint.shapes) == len(_tensors())
    tensors = _tensors()
    np.testing.assert_array_equal(
        checkpoint.read("model.layers.1.mlp.down_proj.weight"), tensors["blk.1.ffn_down.weight"]
    )


def test_query_and_key_rows_go_from_interleaved_to_half_split(tmp_path):
    checkpoint = open_checkpoint(_write(tmp_path / "x.gguf"))
    for name, heads in (("q", HEADS), ("k", GROUPS)):
        stored = _tensors()[f"blk.0.attn_{name}.weight"].reshape(heads, HEAD_DIM, WIDTH)
        halves = np.concatenate([stored[:, 0::2], stored[:, 1::2]], axis=1).reshape(-1, WIDTH)
        read = checkpoint.read(f"model.layers.0.self_attn.{name}_proj.weight")
        np.testing.assert_array_equal(read, halves)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantisations(tmp_path, kind):
    checkpoint = open_checkpoint(_write(tmp_path / "x.gguf", kind=kind))
    read = checkpoint.read("model.layers.0.mlp.up_proj.weight")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, _stored(_tensors()["blk.0.ffn_up.weight"], kind))
    # Four bits leave an error of a sixteenth of the range of a block, which spans about 4 here.
    assert np.abs(read - _tensors()["blk.0.ffn_up.weight"]).max() < 0.5


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_k_quantisations(tmp_path, kind):
    kind = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows = np.random.default_rng(0).integers(0, 60, (WIDTH, HIDDEN * 8 // block * size), np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    for key in ("block_count", "context_length", "embedding_length", "feed_forward_length"):
        writer.add_uint32(f"llama.{key}", 64)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", np.zeros((1, 64), np.float32))
    writer.add_tensor("blk.0.ffn_down.weight", rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = open_checkpoint(tmp_path / "x.gguf").read("model.layers.0.mlp.down_proj.weight")
    assert read.shape == (WIDTH, HIDDEN * 8) and np.isfinite(read).all() and read.std() > 0
    np.testing.assert_array_equal(read, gguf.quants.dequantize(rows, kind))


def test_untied_embeddings_and_biases_show_in_the_configuration(tmp_path):
    tensors = _tensors()
    tensors["output.weight"] = tensors["token_embd.weight"] * 2
    for i in range(LAYERS):
        tensors[f"blk.{i}.attn_q.bias"] = np.arange(HEADS * HEAD_DIM, dtype=np.float32)
        tensors[f"blk.{i}.ffn_down.bias"] = np.ones(WIDTH, np.float32)
    checkpoint = open_checkpoint(_write(tmp_path / "x.gguf", tensors))
    config = checkpoint.config
    assert (config["tie_word_embeddings"], config["attention_bias"], config["mlp_bias"]) == (
        False,
        True,
        True,
    )
    bias = checkpoint.read("model.layers.0.self_attn.q_proj.bias")
    assert bias[:HEAD_DIM].tolist() == [*range(0, HEAD_DIM, 2), *range(1, HEAD_DIM, 2)]


def test_llama3_frequency_factors_become_their_rope_type(tmp_path):
    scaling = {"factor": 8.0, "low": 1.0, "high": 4.0, "original": 8192}
    frequencies = 500000.0 ** (-np.arange(HEAD_DIM // 2) / (HEAD_DIM // 2))
    factors = []
    for frequency in frequencies:
        wavelength = 2 * np.pi / frequency
        if wavelength < scaling["original"] / scaling["high"]:
            factors.append(1.0)
        elif wavelength > scaling["original"] / scaling["low"]:
            factors.append(scaling["factor"])
        else:
            smooth = (scaling["original"] / wavelength - scaling["low"]) / 3.0
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    tensors = _tensors() | {"rope_freqs.weight": np.array(factors, np.float32)}
    path = _write(tmp_path / "x.gguf", tensors, metadata={"llama.rope.freq_base": 500000.0})
    assert open_checkpoint(path).config["rope_parameters"] == {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }


def test_other_frequency_factors_become_longrope(tmp_path):
    factors = np.linspace(1, 3, HEAD_DIM // 2).astype(np.float32)
    path = _write(tmp_path / "x.gguf", _tensors() | {"rope_freqs.weight": factors})
    rope = open_checkpoint(path).config["rope_parameters"]
    assert (rope["rope_type"], rope["attention_factor"]) == ("longrope", 1.0)
    assert rope["short_factor"] == rope["long_factor"] == factors.tolist()


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_rope_scaling_keys(tmp_path, kind):
    keys = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 4.0}
    keys["llama.rope.scaling.original_context_length"] = 32
    rope = open_checkpoint(_write(tmp_path / "x.gguf", metadata=keys)).config["rope_parameters"]
    expected = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    if kind == "yarn":
        expected["original_max_position_embeddings"] = 32
    assert rope == expected


def test_tokenizer_files(tmp_path):
    assets = open_checkpoint(_write(tmp_path / "x.gguf")).assets
    tokenizer = Tokenizer.from_str(assets["tokenizer.json"].decode())
    # The pre-tokenizer of smollm splits digits before the merge "1 2" can apply.
    assert tokenizer.encode("<|im_start|>ab 12<|im_end|>").ids == [1, 5, 9, 6, 7, 2]
    config = json.loads(assets["tokenizer_config.json"])
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    assert special.items() <= config.items()
    assert config["chat_template"] == "{{ messages[0].content }}"
    generation = json.loads(assets["generation_config.json"])
    assert generation == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}


@pytest.mark.parametrize(
    ("metadata", "ids"),
    [
        ({"tokenizer.ggml.add_bos_token": True}, [1, 5, 9, 6, 7]),
        ({"tokenizer.ggml.pre": "llama-bpe"}, [1, 5, 9, 8]),
        ({"tokenizer.ggml.pre": "gpt-2"}, [5, 9, 8]),
    ],
    ids=["bos", "llama-bpe", "gpt-2"],
)
def test_other_pre_tokenizers_and_the_first_token(tmp_path, metadata, ids):
    assets = open_checkpoint(_write(tmp_path / "x.gguf", metadata=metadata)).assets
    tokenizer = Tokenizer.from_str(assets["tokenizer.json"].decode())
    assert tokenizer.encode("ab 12").ids == ids


def test_an_unknown_tokenizer_is_left_out_with_a_warning(tmp_path):
    path = _write(tmp_path / "x.gguf", metadata={"tokenizer.ggml.pre": "martian"})
    with pytest.warns(UserWarning, match="pre-tokenizer 'martian'"):
        assets = open_checkpoint(path).assets
    assert set(assets) == {"generation_config.json"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mamba"}, "architecture 'mamba' is not implemented"),
        ({"metadata": {"llama.expert_count": 8}}, "llama.expert_count=8"),
        ({"metadata": {"llama.rope.scaling.type": "spiral"}}, "scaling.type='spiral'"),
        ({"metadata": {"llama.rope.dimension_count": 8, "llama.attention.key_length": 16}}, "8 of"),
        ({"metadata": {"tokenizer.ggml.eos_token_id": 99}}, "eos_token_id is 99, outside"),
        ({"tensors": {"blk.0.attn_sinks.weight": np.ones(3, np.float32)}}, "attn_sinks"),
    ],
)
def test_what_is_not_implemented_is_named(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(_write(tmp_path / "x.gguf", **change))


def test_a_file_cut_anywhere_is_refused(tmp_path):
    content = _write(tmp_path / "x.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    # Every length inside the header, and some inside the weights.
    for size in [*range(0, 3000, 7), *range(3000, len(content), 9973), len(content) - 1]:
        cut.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="cut.gguf"):
            open_checkpoint(cut)


def test_no_damaged_header_makes_it_hang_or_crash(tmp_path):
    content = bytearray(_write(tmp_path / "x.gguf").read_bytes())
    damaged = tmp_path / "damaged.gguf"
    refused = 0
    for position in range(0, 3000, 3):
        saved = content[position : position + 8]
        content[position : position + 8] = struct.pack("<Q", 2**63 + position)
        damaged.write_bytes(content)
        try:
            open_checkpoint(damaged)
        except SeqAttnError:
            refused += 1
        content[position : position + 8] = saved
    assert refused > 500


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    path = _write(tmp_path / "x.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(CheckpointError, match=r"pip install .keras-seqattn\[gguf\]"):
        open_checkpoint(path)


def _entry(key, kind, value):
    """The good file with one entry changed, or added."""
    entries = [entry for entry in gguf_files.metadata() if entry[0] != key]
    return gguf_files.serialise([*entries, [key, kind, value]], gguf_files.tensors_of())[0]


U8, I32, U32, F32, BOOL, TEXT, LIST, U64, I64 = 0, 5, 4, 6, 7, 8, 9, 10, 11
WRONG_ENTRIES = [
    ("general.architecture", U32, 1),
    ("general.architecture", LIST, (TEXT, ["llama"])),
    ("general.alignment", F32, 32.0),
    ("general.alignment", TEXT, "32"),
    ("general.alignment", U64, 2**63),
    *(("llama.block_count", *value) for value in ((TEXT, "2"), (F32, 2.0), (BOOL, 1), (I64, -2))),
    ("llama.block_count", U64, 10**12),
    ("llama.attention.head_count", U32, 0),
    ("llama.attention.head_count", LIST, (U32, [4, 4])),
    ("llama.attention.head_count_kv", U32, 0),
    ("llama.attention.head_count_kv", U32, 3),
    ("llama.attention.key_length", U32, 2**31),
    ("llama.embedding_length", TEXT, "wide"),
    ("llama.context_length", U64, 2**63),
    ("llama.context_length", U32, 10**9),
    ("llama.attention.layer_norm_rms_epsilon", F32, np.nan),
    ("llama.attention.layer_norm_rms_epsilon", F32, -1e-5),
    ("llama.attention.layer_norm_rms_epsilon", TEXT, "small"),
    ("llama.rope.freq_base", F32, np.inf),
    ("llama.rope.freq_base", F32, 0.0),
    ("llama.rope.freq_base", LIST, (F32, [10000.0])),
    ("llama.rope.dimension_count", U32, 7),
    ("llama.rope.scaling.type", U32, 1),
    ("llama.expert_count", TEXT, "eight"),
    ("tokenizer.ggml.model", U32, 1),
    ("tokenizer.ggml.pre", LIST, (TEXT, ["smollm"])),
    ("tokenizer.ggml.tokens", TEXT, "a b c"),
    ("tokenizer.ggml.tokens", LIST, (U32, [1, 2, 3])),
    ("tokenizer.ggml.tokens", LIST, (TEXT, [])),
    ("tokenizer.ggml.tokens", LIST, (TEXT, [f"t{n}" for n in range(300)])),
    ("tokenizer.ggml.merges", LIST, (U32, [1])),
    ("tokenizer.ggml.merges", LIST, (TEXT, ["nospace"])),
    ("tokenizer.ggml.merges", LIST, (TEXT, ["not there"])),
    ("tokenizer.ggml.token_type", TEXT, "3"),
    ("tokenizer.ggml.token_type", LIST, (I32, [3])),
    ("tokenizer.ggml.add_bos_token", TEXT, "yes"),
    *((f"tokenizer.ggml.{name}_token_id", TEXT, "x") for name in ("bos", "eos", "padding", "eot")),
    ("tokenizer.ggml.eos_token_id", F32, 2.0),
    ("tokenizer.ggml.eos_token_id", LIST, (U32, [2])),
    ("tokenizer.ggml.eot_token_id", U32, 10**6),
    ("tokenizer.ggml.bos_token_id", I32, -1),
    ("tokenizer.chat_template", U32, 1),
    ("tokenizer.chat_template", LIST, (TEXT, ["{{ x }}"])),
    ("x", 13, 0),
    ("x", LIST, (LIST, [(U32, [1])])),
]


@pytest.mark.parametrize(("key", "kind", "value"), WRONG_ENTRIES)
def test_entries_of_the_wrong_kind_are_refused_in_one_line(tmp_path, key, kind, value):
    (tmp_path / "x.gguf").write_bytes(_entry(key, kind, value))
    with pytest.raises(SeqAttnError) as caught:
        models.load(tmp_path / "x.gguf")
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


def test_an_end_of_turn_alone_ends_the_text(tmp_path):
    entries = [entry for entry in gguf_files.metadata() if "eos" not in entry[0]]
    entries.append(["tokenizer.ggml.eot_token_id", U32, 5])
    content, _ = gguf_files.serialise(entries, gguf_files.tensors_of())
    (tmp_path / "x.gguf").write_bytes(content)
    assert open_checkpoint(tmp_path / "x.gguf").config["eos_token_id"] == [5]


@pytest.mark.parametrize(
    "change",
    [
        {"shape": (0, 64)},
        {"shape": (2**63, 2**63)},
        {"shape": ()},
        {"kind": 99},
        {"kind": 24},
        {"offset": 2**64 - 32},
        {"offset": 32},
        {"name": "x" * 10**5},
        {"name": f"blk.{10**30}.attn_q.weight"},
        {"name": "output_norm.weight"},
        {"data": np.full(262 * 64, np.nan, "float32").tobytes()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_tensors_that_cannot_be_are_refused(tmp_path, change):
    tensors = gguf_files.tensors_of()
    tensors[0] |= change
    content, _ = gguf_files.serialise(gguf_files.metadata(), tensors)
    (tmp_path / "x.gguf").write_bytes(content)
    with pytest.raises(SeqAttnError) as caught:
        models.load(tmp_path / "x.gguf")
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "head",
    [{"entries": 2**64 - 1}, {"tensors": 2**64 - 1}, {"entries": 10**6}, {"version": 1}],
)
def test_counts_that_the_file_cannot_hold_are_refused(tmp_path, head):
    content, _ = gguf_files.serialise(gguf_files.metadata(), gguf_files.tensors_of(), head)
    (tmp_path / "x.gguf").write_bytes(content + b"\0" * 10**7)
    with pytest.raises(CheckpointError, match="x.gguf"):
        open_checkpoint(tmp_path / "x.gguf")


def test_a_vocabulary_of_control_tokens_alone_is_read_at_once(tmp_path):
    tokens = [f"t{number}" for number in range(20_000)]
    changed = {
        "tokenizer.ggml.tokens": (TEXT, tokens),
        "tokenizer.ggml.token_type": (I32, [3] * len(tokens)),
        "tokenizer.ggml.merges": (TEXT, []),
    }
    entries = [[key, kind, changed.get(key, value)] for key, kind, value in gguf_files.metadata()]
    tensors = gguf_files.tensors_of()
    tensors[0] |= {"shape": (20_000, 64), "data": bytes(20_000 * 64 * 4)}
    content, _ = gguf_files.serialise(entries, tensors)
    (tmp_path / "x.gguf").write_bytes(content)
    file = open_checkpoint(tmp_path / "x.gguf").assets["tokenizer.json"]
    assert len(json.loads(file)["added_tokens"]) == 20_000
