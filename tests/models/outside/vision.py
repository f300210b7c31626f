"""An encoder of images: ViT's layers and weights, and a classifier of its own."""

from keras_seqattn.layers import PatchEmbedding, PositionEmbedding
from keras_seqattn.models import Family
from keras_seqattn.models.embedders import Source, SourceEmbedder
from keras_seqattn.models.encoder import EncoderSpec, build_encoder
from keras_seqattn.models.heads import classify, head_initializer
from keras_seqattn.models.values import SIZE
from keras_seqattn.weights import Table, WeightRow, attention_rows, dense_rows, layer_norm_rows

SIZES = {"image_size": 12, "patch_size": 3, "num_channels": 3}
DEFAULTS = SIZES | {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
DEFAULTS |= {"intermediate_size": 29, "hidden_act": "gelu", "layer_norm_eps": 1e-12}


def build(settings, task, initializer):
    image, patch, width = (settings[n] for n in ("image_size", "patch_size", "hidden_size"))
    shape, count = (settings["num_channels"], image, image), (image // patch) ** 2 + 1

    def patches(name):
        return PatchEmbedding(width, patch, "channels_first", class_token=True, name=name)

    source = Source("pixel_values", shape, patches, masked=False)
    heads, activation = settings["num_attention_heads"], settings["hidden_act"]
    block = {"num_heads": heads, "head_dim": width // heads, "activation": activation}
    block |= {"intermediate_dim": settings["intermediate_size"], "normalize_first": True}
    block["layer_norm_epsilon"] = settings["layer_norm_eps"]
    embedder = SourceEmbedder(source, lambda name: PositionEmbedding(count, width, name=name))
    spec = EncoderSpec(embedder, ({},) * settings["num_hidden_layers"], block, final_norm=True)
    return build_encoder(spec, settings, task, initializer, {"image_classification": classifier})


def classifier(body, settings):
    return classify(body.hidden[:, 0], settings["num_labels"], 0.0, head_initializer(settings))


def table(settings):
    image, layer, ours = "vit.embeddings", "vit.encoder.layer.{i}", "pixel_values_embedding"
    patch, sizes = "o c h w -> (c h w) o", dict.fromkeys("hw", settings["patch_size"])
    theirs, kernel = f"{image}.patch_embeddings.projection", f"{ours}/projection/kernel"
    names = ("attention.query", "attention.key", "attention.value", "output.dense")
    body = (
        WeightRow(f"{image}.cls_token", f"{ours}/class_token"),
        WeightRow(f"{image}.position_embeddings", "position_embedding/embeddings", "() t m -> t m"),
        WeightRow(f"{theirs}.weight", kernel, patch, sizes=sizes),
        WeightRow(f"{theirs}.bias", f"{ours}/projection/bias"),
        *attention_rows(f"{layer}.attention", "layers_{i}/attention", names),
        *dense_rows(f"{layer}.intermediate.dense", "layers_{i}/feed_forward/up"),
        *dense_rows(f"{layer}.output.dense", "layers_{i}/feed_forward/down"),
        *layer_norm_rows(f"{layer}.layernorm_before", "layers_{i}/attention_norm"),
        *layer_norm_rows(f"{layer}.layernorm_after", "layers_{i}/feed_forward_norm"),
        *layer_norm_rows("vit.layernorm", "norm"),
    )
    return Table(body, dense_rows("classifier", "classifier"), "vit.")


CLASSES = {"embedding": "ViTModel", "image_classification": "ViTForImageClassification"}
FAMILY = Family("outside_vit", CLASSES, DEFAULTS, {}, build, table, keys=dict.fromkeys(SIZES, SIZE))
