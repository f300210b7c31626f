"""Blocks of other forms against transformers: parallel sublayers, and norms on both sides."""

import pytest
from transformers import Gemma2Config, GPTNeoXConfig

from keras_seqattn import models
from keras_seqattn.layers import RotaryPositions
from keras_seqattn.models import registry
from keras_seqattn.models.decoder import DecoderSpec, decoder_model, step_model
from keras_seqattn.weights.rows import (
    WeightRow,
    attention_rows,
    dense_rows,
    fused_rows,
    layer_norm_rows,
)
from keras_seqattn.weights.table import Table
from tests.models.reference import (
    TOLERANCE,
    check_parity,
    check_round_trip,
    make_reference,
    parity_error,
)

pytestmark = pytest.mark.backend_free

SIZES = {
    "vocab_size": 37,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 29,
    "max_position_embeddings": 53,
}
HEADS = {"num_heads": 4, "head_dim": 6, "intermediate_dim": 29}
LAYERS = "layers_{i}"


def _gpt_neox(residual="parallel"):
    def build(settings, task, initializer):
        positions = RotaryPositions(6, fraction=0.34)
        block = HEADS | {"layer_norm_epsilon": 1e-5, "residual": residual, "positions": positions}
        spec = DecoderSpec(37, 24, ({},) * 2, block, tied=False)
        return decoder_model(spec, settings, task, initializer)

    layer = "gpt_neox.layers.{i}"
    parts = [f"{LAYERS}/attention/{name}" for name in ("query", "key", "value")]
    axes = "(h p d) i -> i (h p d)"
    body = (
        WeightRow("gpt_neox.embed_in.weight", "token_embedding/embeddings"),
        *layer_norm_rows(f"{layer}.input_layernorm", f"{LAYERS}/attention_norm"),
        *layer_norm_rows(f"{layer}.post_attention_layernorm", f"{LAYERS}/feed_forward_norm"),
        *fused_rows(f"{layer}.attention.query_key_value", parts, axes, "p", h=4, d=6),
        *dense_rows(f"{layer}.attention.dense", f"{LAYERS}/attention/output_dense"),
        *dense_rows(f"{layer}.mlp.dense_h_to_4h", f"{LAYERS}/feed_forward/up"),
        *dense_rows(f"{layer}.mlp.dense_4h_to_h", f"{LAYERS}/feed_forward/down"),
        *layer_norm_rows("gpt_neox.final_layer_norm", "norm"),
    )
    head = (WeightRow("embed_out.weight", "token_embedding/reverse_embeddings", "v m -> m v"),)
    return build, Table(body, head, "gpt_neox.")


def _gemma2():
    def build(settings, task, initializer):
        block = HEADS | {
            "num_key_value_heads": 2,
            "layer_norm_epsilon": 1e-6,
            "norm": "zero_centered_rms_norm",
            "residual": "both",
            "positions": RotaryPositions(6),
            "use_bias": False,
            "activation": "gelu_tanh",
            "gated": True,
            "softcap": 5.0,
            "scale": 7**-0.5,
        }
        layers = ({"window": (3, 0)}, {})
        spec = DecoderSpec(37, 24, layers, block, embedding_scale=24**0.5)
        return decoder_model(spec, settings, task, initializer)

    layer = "model.layers.{i}"
    norms = {
        "input_layernorm": "attention_norm",
        "post_attention_layernorm": "attention_output_norm",
        "pre_feedforward_layernorm": "feed_forward_norm",
        "post_feedforward_layernorm": "feed_forward_output_norm",
    }
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    body = (
        WeightRow("model.embed_tokens.weight", "token_embedding/embeddings"),
        *(WeightRow(f"{layer}.{n}.weight", f"{LAYERS}/{ours}/scale") for n, ours in norms.items()),
        *attention_rows(f"{layer}.self_attn", f"{LAYERS}/attention", names),
        *dense_rows(f"{layer}.mlp.gate_proj", f"{LAYERS}/feed_forward/gate"),
        *dense_rows(f"{layer}.mlp.up_proj", f"{LAYERS}/feed_forward/up"),
        *dense_rows(f"{layer}.mlp.down_proj", f"{LAYERS}/feed_forward/down"),
        WeightRow("model.norm.weight", "norm/scale"),
    )
    # A tied head may be stored twice.
    return build, Table(body, (WeightRow("lm_head.weight", None),), "model.")


GPT_NEOX = GPTNeoXConfig(**SIZES, rotary_pct=0.34)
GEMMA2 = Gemma2Config(
    **SIZES,
    num_key_value_heads=2,
    head_dim=6,
    sliding_window=4,
    attn_logit_softcapping=5.0,
    final_logit_softcapping=None,
    query_pre_attn_scalar=7,
)
CASES = {
    "GPTNeoXForCausalLM": (GPT_NEOX, _gpt_neox),
    "Gemma2ForCausalLM": (GEMMA2, _gemma2),
}


def _register(monkeypatch, config, architecture, build, table):
    monkeypatch.setattr(registry, "_registered", {})
    models.register(
        models.Family(
            config.model_type,
            {"causal_lm": architecture},
            SIZES,
            fixed={},
            build=build,
            table=table,
            step=step_model,
        )
    )


@pytest.mark.parametrize("architecture", CASES)
def test_logits_and_weights_equal_transformers(architecture, tmp_path, monkeypatch):
    config, family = CASES[architecture]
    reference = make_reference(architecture, config)
    reference.save_pretrained(tmp_path)
    _register(monkeypatch, config, architecture, *family())
    model = check_parity(reference, tmp_path)
    check_round_trip(model, reference, tmp_path / "again")


def test_parity_notices_sublayers_that_are_not_parallel(tmp_path, monkeypatch):
    reference = make_reference("GPTNeoXForCausalLM", GPT_NEOX)
    reference.save_pretrained(tmp_path)
    _register(monkeypatch, GPT_NEOX, "GPTNeoXForCausalLM", *_gpt_neox("pre"))
    assert parity_error(reference, tmp_path) > 100 * TOLERANCE
