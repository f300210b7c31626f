"""An encoder without token types: DistilBERT's layers and weights."""

from keras_seqattn.layers import PositionEmbedding
from keras_seqattn.models import Family
from keras_seqattn.models.embedders import TokenEmbedder
from keras_seqattn.models.encoder import EncoderSpec, build_encoder
from keras_seqattn.models.values import SIZE, Activation
from keras_seqattn.weights import Table, WeightRow, attention_rows, dense_rows, layer_norm_rows

SIZES = {"vocab_size": 97, "dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 29}
DEFAULTS = SIZES | {"max_position_embeddings": 64, "activation": "gelu"}


def build(settings, task, initializer):
    width, heads = settings["dim"], settings["n_heads"]

    def positions(name):
        return PositionEmbedding(settings["max_position_embeddings"], width, name=name)

    norm = ("layer_norm", 1e-12)
    spec = EncoderSpec(
        TokenEmbedder(settings["vocab_size"], width, positions, norm=norm),
        layers=({},) * settings["n_layers"],
        block={
            "num_heads": heads,
            "head_dim": width // heads,
            "intermediate_dim": settings["hidden_dim"],
            "activation": settings["activation"],
            "layer_norm_epsilon": norm[1],
        },
    )
    return build_encoder(spec, settings, task, initializer)


ROOT, LAYER = "distilbert.embeddings", "distilbert.transformer.layer.{i}"
PROJECTIONS = ("q_lin", "k_lin", "v_lin", "out_lin")
BODY = (
    WeightRow(f"{ROOT}.word_embeddings.weight", "token_embedding/embeddings"),
    WeightRow(f"{ROOT}.position_embeddings.weight", "position_embedding/embeddings"),
    *layer_norm_rows(f"{ROOT}.LayerNorm", "embeddings_norm"),
    *attention_rows(f"{LAYER}.attention", "layers_{i}/attention", PROJECTIONS),
    *layer_norm_rows(f"{LAYER}.sa_layer_norm", "layers_{i}/attention_norm"),
    *dense_rows(f"{LAYER}.ffn.lin1", "layers_{i}/feed_forward/up"),
    *dense_rows(f"{LAYER}.ffn.lin2", "layers_{i}/feed_forward/down"),
    *layer_norm_rows(f"{LAYER}.output_layer_norm", "layers_{i}/feed_forward_norm"),
)
TAGGER = "DistilBertForTokenClassification"
FAMILY = Family(
    "outside_distilbert",
    {"embedding": "DistilBertModel", "token_classification": TAGGER},
    DEFAULTS,
    fixed={"sinusoidal_pos_embds": (None, False)},
    build=build,
    table=Table(BODY, dense_rows("classifier", "classifier"), "distilbert."),
    keys=dict.fromkeys(SIZES, SIZE) | {"activation": Activation()},
    layer_counts={"layers_{i}": ("n_layers",)},
)
