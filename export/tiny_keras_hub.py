"""Tiny backbones of keras-hub, built without downloads, for the programs and tests that try all."""

import keras_hub

_M = keras_hub.models
_TEXT = {"vocabulary_size": 97, "num_layers": 2, "hidden_dim": 24, "intermediate_dim": 40}
_HEADS = _TEXT | {"num_heads": 2}
_LONG = _HEADS | {"max_sequence_length": 64}
_GROUPS = _TEXT | {"num_query_heads": 4, "num_key_value_heads": 2}
_IMAGE = {"image_shape": (32, 32, 3)}
_FREE = {"image_shape": (None, None, 3)}
_VIT = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16}
_MOE = {"num_experts": 4, "top_k": 2, "moe_intermediate_dim": 20}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}
_T5GEMMA = {"vocabulary_size": 97, "query_pre_attn_scalar": 8.0, "attn_logit_softcapping": 50.0}
for _side in ("encoder", "decoder"):
    _T5GEMMA |= {
        f"{_side}_hidden_dim": 24,
        f"{_side}_intermediate_dim": 40,
        f"{_side}_num_layers": 2,
        f"{_side}_num_attention_heads": 4,
        f"{_side}_num_key_value_heads": 2,
        f"{_side}_head_dim": 8,
        f"{_side}_layer_types": ["sliding_attention", "full_attention"],
    }
_T5GEMMA |= {"sliding_window": 8, "cross_attention_hidden_size": 24}


def _resnet(**changes):
    settings = {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 16, 24],
        "stackwise_num_blocks": [1, 1, 1],
        "stackwise_num_strides": [1, 2, 2],
        "block_type": "basic_block",
    }
    return _M.ResNetBackbone(**settings | _FREE | changes)


def _densenet():
    return _M.DenseNetBackbone([1, 2, 1], compression_ratio=0.5, growth_rate=8, **_FREE)


def _mobilenet():
    return _M.MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[16, 16], [24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish", "hard_swish"]],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=32,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=64,
        squeeze_and_excite=0.5,
        **_FREE,
    )


def _efficientnet():
    return _M.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 5],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        num_features=24,
    )


def _cspnet():
    return _M.CSPNetBackbone(
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[8, 16],
        block_type="dark_block",
        stage_type="csp",
        expand_ratio=[2.0],
        **_FREE,
    )


def _mit(**changes):
    settings = {
        "layerwise_depths": [1, 1],
        "num_layers": 2,
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1],
        "max_drop_path_rate": 0.1,
        "layerwise_patch_sizes": [3, 3],
        "layerwise_strides": [4, 2],
        "hidden_dims": [8, 16],
    }
    return _M.MiTBackbone(**settings | _IMAGE | changes)


def _xception():
    return _M.XceptionBackbone([[8, 8], [16, 16]], [True, False], **_FREE)


def _hgnet():
    return _M.HGNetV2Backbone(
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 24],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[[8, 8, 16, 1, 2, 3], [16, 8, 24, 1, 2, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
        **_FREE,
    )


def _deeplab():
    return _M.DeepLabV3Backbone(
        _resnet(**_IMAGE),
        spatial_pyramid_pooling_key="P4",
        upsampling_size=(4, 4),
        dilation_rates=[2, 3],
        **_IMAGE,
    )


def _retinanet():
    return _M.RetinaNetBackbone(_resnet(), min_level=3, max_level=4, use_p5=False, **_FREE)


def _vitdet():
    return _M.ViTDetBackbone(
        hidden_size=16, num_layers=2, intermediate_dim=24, num_heads=2, patch_size=8,
        global_attention_layer_indices=[1], num_output_channels=8, window_size=2, **_IMAGE,
    )  # fmt: skip


def _vit(**changes):
    settings = _VIT | _IMAGE | {"patch_size": (8, 8), "mlp_dim": 24}
    return _M.ViTBackbone(**settings | changes)


def _depth_anything():
    encoder = _dino(2, num_layers=4, image_shape=(98, 98, 3), position_embedding_shape=(98, 98, 3))
    return _M.DepthAnythingBackbone(
        encoder, reassemble_factors=[4, 2, 1, 0.5], neck_hidden_dims=[8, 8, 16, 16],
        fusion_hidden_dim=8, head_hidden_dim=8, head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def _dino(version, **changes):
    settings = _VIT | {"patch_size": 14 if version == 2 else 8, "intermediate_dim": 24}
    if version == 2:
        settings |= {"image_shape": (28, 28, 3), "position_embedding_shape": (28, 28, 3)}
    else:
        settings |= _IMAGE
    return getattr(_M, f"DINOV{version}Backbone")(**settings | changes)


def _pair(name):
    """CLIP, MetaCLIP 2 or SigLIP: an encoder of pictures and one of texts."""
    prefix = {"CLIP": "clip", "MetaCLIP2": "metaclip_2", "SigLIP": "siglip"}[name]
    module = __import__(f"keras_hub.src.models.{prefix}.{prefix}_vision_encoder", fromlist=["x"])
    texts = __import__(f"keras_hub.src.models.{prefix}.{prefix}_text_encoder", fromlist=["x"])
    vision = getattr(module, f"{name}VisionEncoder")(
        patch_size=8, hidden_dim=16, num_layers=2, num_heads=2, intermediate_dim=24,
        image_shape=(32, 32, 3),
    )  # fmt: skip
    settings = {"vocabulary_size": 97, "embedding_dim": 16, "hidden_dim": 16, "num_layers": 2}
    settings |= {"num_heads": 2, "intermediate_dim": 24}
    text = getattr(texts, f"{name}TextEncoder")(**settings)
    more = () if name == "SigLIP" else (8,)
    return getattr(_M, f"{name}Backbone")(vision, text, *more)


def _gemma3n():
    return _M.Gemma3nBackbone(
        text_vocab_size=97, text_hidden_size=16, num_hidden_layers=2, pad_token_id=0,
        num_attention_heads=2, num_key_value_heads=1, head_dim=8, intermediate_size=[24, 24],
        hidden_activation="gelu_approximate", layer_types=["full_attention", "sliding_attention"],
        sliding_window=4, rope_theta=10000.0, max_position_embeddings=32,
        vocab_size_per_layer_input=97, hidden_size_per_layer_input=4, altup_num_inputs=2,
        laurel_rank=2,
    )  # fmt: skip


def _smollm3():
    return _M.SmolLM3Backbone(
        vocabulary_size=97, hidden_dim=32, intermediate_dim=40, num_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attention_bias=False,
        attention_dropout=0.0, rope_layer_enabled_list=[True, False],
        layer_types=["full_attention"] * 2, mlp_bias=False, layer_norm_epsilon=1e-5,
        max_position_embeddings=64, rope_theta=1e4, partial_rotary_factor=1.0,
    )  # fmt: skip


def _rwkv():
    return _M.RWKV7Backbone(
        hidden_size=16, head_size=8, num_layers=2, vocabulary_size=97, intermediate_dim=24,
        gate_lora=8, mv_lora=8, aaa_lora=8, decay_lora=8,
    )  # fmt: skip


def _moonshine():
    return _M.MoonshineBackbone(
        vocabulary_size=97, filter_dim=16, encoder_num_layers=1, decoder_num_layers=1,
        hidden_dim=16, intermediate_dim=24, encoder_num_heads=2, decoder_num_heads=2,
    )  # fmt: skip


def _flux():
    return _M.FluxBackbone(
        input_channels=16, hidden_size=24, mlp_ratio=2.0, num_heads=2, depth=1,
        depth_single_blocks=1, axes_dim=[4, 4, 4], theta=10_000, use_bias=True,
        image_shape=(9, 16), text_shape=(5, 16), image_ids_shape=(9, 3), text_ids_shape=(5, 3),
        y_shape=(16,),
    )  # fmt: skip


def _parseq():
    encoder = _vit(use_class_token=False)
    return _M.PARSeqBackbone(
        encoder, vocabulary_size=97, max_label_length=40, decoder_hidden_dim=16,
        num_decoder_layers=1, num_decoder_heads=2, decoder_mlp_dim=24,
    )  # fmt: skip


def _paligemma():
    return _M.PaliGemmaBackbone(
        **_GROUPS, image_size=16, head_dim=8, vit_patch_size=4, vit_num_heads=2,
        vit_hidden_dim=8, vit_num_layers=1, vit_intermediate_dim=16,
    )  # fmt: skip


def _from(name, **settings):
    return lambda: getattr(_M, f"{name}Backbone")(**settings)


# Name of a backbone -> function without arguments that builds it.
BACKBONES = {
    "Bert": _from("Bert", **_LONG),
    "DistilBert": _from("DistilBert", **_LONG),
    "Roberta": _from("Roberta", **_LONG),
    "XLMRoberta": _from("XLMRoberta", **_LONG),
    "Albert": _from("Albert", **_LONG, embedding_dim=16),
    "DebertaV3": _from("DebertaV3", **_LONG, bucket_size=16),
    "Electra": _from(
        "Electra", **{k: n for k, n in _LONG.items() if k != "vocabulary_size"}, vocab_size=97,
        embedding_dim=16,
    ),
    "ESM": _from("ESM", **_LONG),
    "FNet": _from("FNet", **_TEXT, max_sequence_length=64),
    "RoformerV2": _from("RoformerV2", **_HEADS, head_size=12),
    "XLNet": _from("XLNet", **_HEADS),
    "GPT2": _from("GPT2", **_LONG),
    "OPT": _from("OPT", **_LONG),
    "Bloom": _from("Bloom", **_HEADS),
    "GPTNeoX": _from("GPTNeoX", **_HEADS | {"hidden_dim": 32}),
    "Falcon": _from("Falcon", **_TEXT, num_attention_heads=2),
    "Llama": _from("Llama", **_GROUPS),
    "Llama3": _from(
        "Llama3", **_GROUPS, rope_frequency_adjustment_factor=8.0, rope_low_freq_factor=1.0,
        rope_high_freq_factor=4.0, rope_pretraining_sequence_length=16,
    ),
    "Mistral": _from("Mistral", **_GROUPS, sliding_window=5),
    "Mixtral": _from("Mixtral", **_GROUPS, num_experts=4, sliding_window=5),
    "Gemma": _from("Gemma", **_GROUPS, head_dim=8),
    "Gemma 2": _from(
        "Gemma", **_GROUPS, head_dim=8, use_post_ffw_norm=True, use_post_attention_norm=True,
        attention_logit_soft_cap=5.0, use_sliding_window_attention=True, sliding_window_size=5,
    ),
    "Gemma3": _from(
        "Gemma3", **_GROUPS, head_dim=8, image_size=16, use_sliding_window_attention=True,
        sliding_window_size=5,
    ),
    "Gemma3n": _gemma3n,
    "Gemma4": _from("Gemma4", **_GROUPS, head_dim=8, image_size=16, sliding_window_size=5),
    "Phi3": _from("Phi3", **_GROUPS),
    "Qwen": _from("Qwen", **_GROUPS),
    "Qwen3": _from("Qwen3", **_GROUPS, head_dim=8, sliding_window_size=None),
    "QwenMoe": _from("QwenMoe", **_GROUPS, **_MOE, shared_expert_intermediate_dim=20),
    "Qwen3Moe": _from("Qwen3Moe", **_GROUPS, **_MOE, head_dim=8, sliding_window_size=None),
    "Qwen3_5": _from("Qwen3_5", **_GROUPS, **_LINEAR, head_dim=8),
    "GptOss": _from("GptOss", **_GROUPS, num_experts=4, sliding_window=5),
    "SmolLM3": _smollm3,
    "RWKV7": _rwkv,
    "Bart": _from("Bart", **_LONG),
    "T5": _from("T5", **_HEADS),
    "T5Gemma": _from("T5Gemma", **_T5GEMMA),
    "EdRec": _from(
        "EdRec", vocab_size=97, num_layers_enc=1, num_layers_dec=1, hidden_dim=16,
        intermediate_dim=24, num_heads=2,
    ),
    "Whisper": _from(
        "Whisper", **_HEADS, num_mels=8, max_encoder_sequence_length=32,
        max_decoder_sequence_length=16,
    ),
    "Moonshine": _moonshine,
    "ViT": _vit,
    "DeiT": _from("DeiT", **_VIT, **_IMAGE, patch_size=8, intermediate_dim=24),
    "DINOV2": lambda: _dino(2),
    "DINOV3": lambda: _dino(3),
    "SwinTransformer": _from(
        "SwinTransformer", **_IMAGE, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4
    ),
    "ViTDet": _vitdet,
    "MiT": _mit,
    "ResNet": _resnet,
    "DenseNet": _densenet,
    "EfficientNet": _efficientnet,
    "MobileNet": _mobilenet,
    "CSPNet": _cspnet,
    "VGG": lambda: _M.VGGBackbone([1, 1], [8, 16], **_FREE),
    "Xception": _xception,
    "HGNetV2": _hgnet,
    "DeepLabV3": _deeplab,
    "RetinaNet": _retinanet,
    "SegFormer": lambda: _M.SegFormerBackbone(_mit(), projection_filters=8),
    "DepthAnything": _depth_anything,
    "CLIP": lambda: _pair("CLIP"),
    "MetaCLIP2": lambda: _pair("MetaCLIP2"),
    "SigLIP": lambda: _pair("SigLIP"),
    "PaliGemma": _paligemma,
    "PARSeq": _parseq,
    "Flux": _flux,
}  # fmt: skip

# Lengths for models that need long inputs, and for models that take one length.
LENGTHS = {"Moonshine": [1000, 1501]}
# Causal language models that decode with keys and values, by the name of their backbone above.
DECODERS = [
    "GPT2", "OPT", "Bloom", "GPTNeoX", "Falcon", "Llama", "Llama3", "Mistral", "Mixtral", "Gemma",
    "Gemma 2", "Gemma3", "Phi3", "Qwen", "Qwen3", "QwenMoe", "Qwen3Moe", "GptOss", "SmolLM3",
]  # fmt: skip
ENCODER_DECODERS = ["Bart", "T5"]


def task(name):
    """The task of a decoder or an encoder-decoder of the lists, without a preprocessor."""
    kind = "Seq2SeqLM" if name in ENCODER_DECODERS else "CausalLM"
    backbone = BACKBONES[name]()
    cls = getattr(_M, type(backbone).__name__.removesuffix("Backbone") + kind)
    made = cls(backbone, preprocessor=None)
    made.compile(sampler="greedy")
    return made
