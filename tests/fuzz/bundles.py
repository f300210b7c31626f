"""Bundles with one to three faults in their files, opened and used as a stranger's would be."""

import contextlib
import hashlib
import json
import os
import shutil

import onnx
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models

from keras_seqattn import runtime
from keras_seqattn.inspection import inspect
from tests.fuzz import templates
from tests.fuzz.harness import Refused, attempt
from tests.fuzz.mutations import hostile, json_bytes, mutate_bytes, pick

GOOD = "good"
TEXT = "Hello, world! The cat sat."
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SETTINGS = {
    "eos_token_id": [0],
    "pad_token_id": 1,
    "max_new_tokens": 4,
    "do_sample": False,
    "temperature": 0.7,
    "top_k": 5,
    "top_p": 0.9,
    "repetition_penalty": 1.1,
    "bad_words_ids": [[5, 6], [7]],
    "num_beams": 2,
    "length_penalty": 1.5,
    "no_repeat_ngram_size": 2,
    "stop_strings": ["zq"],
}
TASKS = {
    "summarization": {"prefix": "summarize: ", "num_beams": 2, "max_length": 8},
    "translation_en_to_de": {"prefix": "to German: ", "max_length": 7},
}
KEYS = {
    "config.json": (
        *("vocab_size max_position_embeddings model_type id2label problem_type".split()),
        *("task_specific_params eos_token_id max_encoder_position_embeddings num_beams".split()),
        "pad_token_id",
    ),
    "generation_config.json": (
        *SETTINGS,
        *("max_length min_length min_new_tokens forced_bos_token_id forced_eos_token_id".split()),
        *("decoder_start_token_id encoder_no_repeat_ngram_size early_stopping seed min_p".split()),
        *("renormalize_logits guidance_scale suppress_tokens bos_token_id".split()),
    ),
    "tokenizer_config.json": ("model_max_length", "chat_template", "pad_token", "src_lang"),
    "sentence_bert_config.json": ("max_seq_length",),
    "1_Pooling/config.json": ("pooling_mode", "pooling_mode_cls_token", "pooling_mode_lasttoken"),
}


def build(folder):
    """Write a sound bundle of each kind: decoders, encoders with each head, and a model of no task.

    Args:
        folder: pathlib.Path, made here.
    """
    import keras

    from keras_seqattn import models
    from keras_seqattn import onnx as exporter
    from tests.helpers import randomise
    from tests.onnx import tiny

    tokenizer = small_tokenizer()
    size = {"vocab_size": tokenizer.get_vocab_size(), "eos_token_id": 0, "pad_token_id": 1}
    generation = {"generation_config.json": json.dumps(SETTINGS).encode()}
    text = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(
            {"bos_token": "<|user|>", "eos_token": "<|end|>", "model_max_length": 60}
            | {"pad_token": {"content": "<|pad|>"}, "chat_template": TEMPLATE}
        ).encode(),
    }
    labels, written = {"num_labels": 3}, {"id2label": {"0": "O", "1": "B-X", "2": "I-X"}}
    t5 = tiny.T5 | size | {"decoder_start_token_id": 1}
    kinds = {
        "llama": ("llama", "causal_lm", tiny.LLAMA | size),
        "mistral": ("mistral", "causal_lm", tiny.LLAMA | size | {"sliding_window": 5}),
        "lfm2": ("lfm2", "causal_lm", tiny.LFM2 | size),
        "t5": ("t5", "seq2seq_lm", t5),
        "bert": ("bert", "embedding", tiny.BERT | size),
        "classifier": ("bert", "sequence_classification", tiny.BERT | size | labels),
        "tagger": ("bert", "token_classification", tiny.BERT | size | labels),
        "answers": ("bert", "question_answering", tiny.BERT | size),
    }
    for name, (family, task, config) in kinds.items():
        model = randomise(models.build(family, task=task, **config), seed=3)
        model.config.update(written if "num_labels" in config else {})
        model.config.update({"task_specific_params": TASKS} if name == "t5" else {})
        model.assets = text | (generation if task in ("causal_lm", "seq2seq_lm") else {})
        if name == "bert":
            model.assets |= _pooling()
        exporter.export(model, folder / name, verify=False)
    x = keras.Input((None, 3), name="x")
    plain = keras.Model(x, keras.layers.Dense(2, name="dense")(x), name="plain")
    exporter.export(plain, folder / "plain", verify=False)
    _keep_weights_outside(folder / "llama")


def small_tokenizer():
    """Byte-level BPE with a few merges."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    return tokenizer


def _pooling():
    kind = "sentence_transformers.models."
    names = ("Transformer", "Pooling", "Normalize")
    modules = [{"idx": i, "path": f"{i}_{n}", "type": kind + n} for i, n in enumerate(names)]
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 23},
    }
    return {name: json.dumps(value).encode() for name, value in files.items()}


def _keep_weights_outside(folder):
    model = onnx.load(folder / "model.onnx")
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=1024,
    )
    _list(folder)


def _list(folder):
    """Let parity.json list the files as they are."""
    files = {}
    for file in _small_files(folder):
        content = file.read_bytes()
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        files[file.relative_to(folder).as_posix()] = entry
    files.pop("parity.json", None)
    (folder / "parity.json").unlink(missing_ok=True)
    (folder / "parity.json").write_text(json.dumps({"files": files}))


def _small_files(folder):
    """The regular files of a folder, without those that a fault has made very long."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if file.stat().st_size < 1 << 24]


def case(random, folder):
    """Damage a bundle, open it, and use it."""
    kinds = sorted(path.name for path in (folder.parent / GOOD).iterdir())
    bundle = folder / "bundle"
    shutil.copytree(folder.parent / GOOD / pick(random, kinds), bundle)
    listing = random.random()
    if listing < 0.6:
        (bundle / "parity.json").unlink()
    for _ in range(int(random.integers(1, 4))):
        damage(random, bundle)
    if listing < 0.95 and (listing >= 0.6 or random.random() < 0.5):
        try:
            _list(bundle)
        except (OSError, ValueError):
            pass
    _try(lambda _: attempt(lambda: str(inspect(bundle))), None, False)
    check = bool(random.random() < 0.5)
    model = attempt(runtime.load, bundle, threads=1, check=check)
    used = [_try(use, model, check) for use in USES.get(model.task, (run,))]
    return "used" if all(used) else "partly used"


def _try(use, model, check):
    """Whether the model can be used so; one that was rehearsed must."""
    try:
        use(model)
        return True
    except Refused as refusal:
        rehearsed = check and use in REHEARSED and model.tokenizer is not None
        assert not rehearsed, f"rehearsed, but refused: {refusal}"
        return False


def generate(model):
    attempt(model.generate, "Hello", max_new_tokens=2, min_new_tokens=0)


def generate_as_configured(model):
    attempt(model.generate, ["The cat", "sat"])


def generate_ids(model):
    attempt(model.generate, [[1, 2, 3], [1]], max_new_tokens=3)


def stream(model):
    attempt(lambda: list(model.stream(TEXT, num_beams=1, max_new_tokens=3)))


def chat(model):
    attempt(model.chat, TEXT, max_new_tokens=3)


def translate(model):
    attempt(model.translate, TEXT)


def summarize(model):
    attempt(model.summarize, [TEXT, "cat"])


def embed(model):
    attempt(model.embed, [TEXT, "cat"])


def classify(model):
    attempt(model.classify, TEXT, top_k=None)


def tag(model):
    attempt(model.tag, TEXT)


def run(model):
    shapes = {value.name: value.shape for value in model.session.get_inputs()}
    feeds = {n: [[1] * 3] if len(s) == 2 else [[[0.5] * 3]] for n, s in shapes.items()}
    attempt(model.run, feeds)


USES = {
    "causal_lm": (generate, generate_ids, generate_as_configured, stream, chat),
    "seq2seq_lm": (generate, generate_ids, generate_as_configured, stream, translate, summarize),
    "embedding": (embed, run),
    "sequence_classification": (classify, run),
    "token_classification": (tag, run),
}
REHEARSED = (generate, embed, classify, tag)


def damage(random, bundle):
    """One fault in a bundle."""
    kind = random.random()
    files = _small_files(bundle)
    texts = [file for file in files if file.suffix == ".json"]
    graphs = [file for file in files if file.suffix == ".onnx"]
    if kind < 0.55 and texts:
        damage_json(random, bundle, pick(random, texts))
    elif kind < 0.62:
        source = pick(random, (templates.source(random), hostile(random)))
        source = source if isinstance(source, str) else json.dumps(source)
        (bundle / "chat_template.jinja").write_bytes(source.encode("utf-8", "surrogatepass"))
    elif kind < 0.72 and files:
        file = pick(random, files)
        file.write_bytes(mutate_bytes(random, file.read_bytes()))
    elif kind < 0.9 and graphs:
        damage_graph(random, pick(random, graphs))
    elif files:
        damage_file(random, bundle, pick(random, files))


def damage_json(random, bundle, file):
    """A change in a JSON file, of the value or of its text."""
    keys = KEYS.get(file.relative_to(bundle).as_posix())
    try:
        value = json.loads(file.read_bytes())
        file.write_bytes(json_bytes(random, value, keys, text_share=0.08))
    except (ValueError, RecursionError):  # an earlier fault in the same file
        pass


def damage_file(random, bundle, file):
    """What a file can be instead of itself."""
    kind = int(random.integers(9))
    if kind == 0:
        file.unlink()
    elif kind == 1:
        file.unlink()
        file.mkdir()
    elif kind == 2:
        file.unlink()
        os.mkfifo(file)
    elif kind == 3:
        file.unlink()
        file.symlink_to(pick(random, ("/etc/passwd", "nothing", file.name, "..", "config.json")))
    elif kind == 4:
        file.write_bytes(b"")
    elif kind == 5:
        os.truncate(file, int(pick(random, (70 << 20, 1 << 33))))
    elif kind == 6:
        # Another mutation may have put a folder there.
        with contextlib.suppress(OSError):
            file.rename(file.with_name(pick(random, ("x.json", "model.onnx", "tokenizer.json"))))
    elif kind == 7:
        file.write_bytes(pick(random, (b"\x3a\x00", b"\x0a\x00", b"\x3a\x02\x0a\x00")) * 500_000)
    else:
        (bundle / ("x" * 200 + ".json")).write_bytes(b"{")


def damage_graph(random, file):
    """A change in an ONNX file: labels, declared shapes, weights, places of weights, operators."""
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception:  # the second fault in one file
        return
    kind = int(random.integers(8))
    graph = model.graph
    values = [*graph.input, *graph.output]
    if kind == 0:
        _damage_label(random, model)
    elif kind == 1 and values:
        _damage_shape(random, pick(random, values))
    elif kind == 2 and values:
        value = pick(random, values)
        value.name = pick(random, ("x", "", "logits", "input_ids", "last_hidden_state"))
    elif kind == 3 and graph.output:
        del graph.output[int(random.integers(len(graph.output)))]
    elif kind == 4 and graph.initializer:
        _damage_weight(random, pick(random, graph.initializer))
    elif kind == 5 and graph.node:
        node = pick(random, graph.node)
        node.op_type = pick(random, ("Identity", "Relu", "Loop", "NoSuchOperator"))
    elif kind == 6 and graph.node:
        _damage_node(random, pick(random, graph.node))
    elif graph.node:
        del graph.node[int(random.integers(len(graph.node)))]
    file.write_bytes(model.SerializeToString())


def _damage_label(random, model):
    label = (
        pick(random, model.metadata_props) if model.metadata_props else model.metadata_props.add()
    )
    values = ("", "true", "maybe", "causal_lm", "seq2seq_lm", "embedding", "x" * 10**5, "int4")
    label.key = label.key or "keras_seqattn.task"
    label.value = pick(random, (*values, "token_classification", "sequence_classification"))


def _damage_shape(random, value):
    dims = value.type.tensor_type.shape.dim
    if not dims or random.random() < 0.1:
        value.type.tensor_type.elem_type = pick(random, (1, 6, 7, 8, 9, 10, 16))
        return
    dim = pick(random, dims)
    if random.random() < 0.3:
        dim.dim_param = pick(random, ("batch_size", "x", ""))
    else:
        dim.dim_value = int(pick(random, (0, 1, 2, 97, 10**6, 10**9, 2**62, -1)))


def _damage_weight(random, tensor):
    places = list(tensor.external_data)
    if places and random.random() < 0.8:
        texts = ("-5", "0", "10", "1" * 30, "x", "", "../up", "/etc/passwd", "a\0b", ".", "x" * 300)
        pick(random, places).value = pick(random, texts)
    elif tensor.dims:
        index = int(random.integers(len(tensor.dims)))
        tensor.dims[index] = int(pick(random, (0, 1, 7, 10**6, 10**9, 2**62, -1)))
    else:
        tensor.data_type = int(pick(random, (0, 1, 7, 8, 10, 99)))


def _damage_node(random, node):
    attributes = [a for a in node.attribute if a.type == onnx.AttributeProto.INT]
    if attributes:
        pick(random, attributes).i = int(pick(random, (-1, 0, 1, 2, 7, 10**6, 2**62)))
    elif node.input:
        node.input[int(random.integers(len(node.input)))] = pick(random, ("", "input_ids", "x"))
