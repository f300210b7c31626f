"""Tiny re-randomised transformers models, and the bundles exported from their checkpoints."""

import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers import models as tokenizer_models

from keras_seqattn import models, onnx, runtime

TEXTS = ["The cat sat on the mat.", "Anna lives in Berlin and works for Acme.", "naïve café, 語!"]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_level_tokenizer():
    """Byte-level BPE with a few merges."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=283, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    return tokenizer


def word_piece_tokenizer():
    """BERT's kind, with pieces that continue a word."""
    words = "the cat sat on mat anna lives in berlin and works for acme . , ! na cafe".split()
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *words,
        *letters,
        *("##" + c for c in letters),
    ]
    vocabulary = list(dict.fromkeys(vocabulary))
    tokenizer = Tokenizer(
        tokenizer_models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def randomise(model):
    generator = torch.Generator().manual_seed(13)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(noise * 0.3)
    return model.eval()


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """More torch threads than one only wait for one another at these sizes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """(transformers' model, its directory)."""
    tokenizer = byte_level_tokenizer()
    # Texts begin with a special token, as LLaMA's do; what a chat template wrote does not.
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|user|> $A", special_tokens=[("<|user|>", 2)]
    )
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=42,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=211,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
        tie_word_embeddings=True,
    )
    model = randomise(transformers.LlamaForCausalLM(config))
    path = tmp_path_factory.mktemp("llama")
    model.save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "chat_template": TEMPLATE}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return model, path


def export(path, output, **options):
    onnx.export(models.load(path), output, verify=False, **options)
    return output


@pytest.fixture(scope="session", params=["ort", "portable"])
def decoder_bundle(request, llama, tmp_path_factory):
    """Folder of the decoder's bundle, for each target."""
    path = tmp_path_factory.mktemp("bundle") / request.param
    return export(llama[1], path, target=request.param)


@pytest.fixture(scope="session")
def decoder(decoder_bundle):
    return runtime.load(decoder_bundle, threads=1)


TASKS = {
    "summarization": {
        "prefix": "summarize: ",
        "num_beams": 3,
        "length_penalty": 2.0,
        "min_length": 6,
        "max_length": 14,
        "early_stopping": True,
        "no_repeat_ngram_size": 2,
    },
    "translation_en_to_de": {
        "prefix": "translate English to German: ",
        "num_beams": 2,
        "max_length": 12,
        "no_repeat_ngram_size": 3,
    },
    "translation_en_to_fr": {
        "prefix": "translate English to French: ",
        "max_length": 9,
        "no_repeat_ngram_size": 2,
    },
}


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    """(transformers' model, its directory), with the settings of tasks in config.json."""
    tokenizer = byte_level_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    config = transformers.T5Config(
        vocab_size=tokenizer.get_vocab_size(),
        d_model=30,
        d_kv=7,
        d_ff=37,
        num_layers=2,
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=19,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        eos_token_id=0,
        pad_token_id=1,
        decoder_start_token_id=1,
        task_specific_params=TASKS,
    )
    model = randomise(transformers.T5ForConditionalGeneration(config))
    path = tmp_path_factory.mktemp("t5")
    model.save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "pad_token": "<|pad|>", "model_max_length": 71}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return model, path


@pytest.fixture(scope="session", params=["ort", "portable"])
def seq2seq_bundle(request, t5, tmp_path_factory):
    """Folder of the encoder-decoder's bundle, for each target."""
    path = tmp_path_factory.mktemp("bundle") / request.param
    return export(t5[1], path, target=request.param)


@pytest.fixture(scope="session")
def seq2seq(seq2seq_bundle):
    return runtime.load(seq2seq_bundle, threads=1)


def bert(architecture, path, **config):
    tokenizer = word_piece_tokenizer()
    config = architecture.config_class(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=30,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=5,
        max_position_embeddings=41,
        **config,
    )
    model = randomise(architecture(config))
    model.save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    settings |= {"sep_token": "[SEP]", "tokenizer_class": "BertTokenizer"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return model


def reference_tokenizer(path):
    return transformers.PreTrainedTokenizerFast.from_pretrained(path)


def pooled(path, pooling, normalized):
    """Write the files by which sentence-transformers says how to pool."""
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
    ]
    if normalized:
        kind = "sentence_transformers.models.Normalize"
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": kind})
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "1_Pooling").mkdir(exist_ok=True)
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 23}))


@pytest.fixture(scope="session")
def embedder(tmp_path_factory):
    """(runtime's model, transformers' model, its directory)."""
    path = tmp_path_factory.mktemp("bert")
    reference = bert(transformers.BertModel, path)
    pooled(path, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, True)
    bundle = export(path, tmp_path_factory.mktemp("bundle") / "embedder")
    return runtime.load(bundle, threads=1), reference, path
