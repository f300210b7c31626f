"""A decoder with learned positions, parallel blocks, and queries, keys and values in one tensor."""

from keras_seqattn.layers import PositionEmbedding
from keras_seqattn.models import Family
from keras_seqattn.models.decoder import DecoderSpec, decoder_model, step_model
from keras_seqattn.models.values import SIZE
from keras_seqattn.weights import Table, WeightRow, dense_rows, fused_rows, layer_norm_rows

SIZES = {"n_embd": 24, "n_layer": 2, "n_head": 4}
DEFAULTS = SIZES | {"vocab_size": 97, "max_position_embeddings": 64, "eos_token_id": None}


def build(settings, task, initializer):
    width, heads = settings["n_embd"], settings["n_head"]

    def positions(name):
        return PositionEmbedding(settings["max_position_embeddings"], width, name=name)

    block = {"num_heads": heads, "head_dim": width // heads, "intermediate_dim": 4 * width}
    block |= {"layer_norm_epsilon": 1e-5, "residual": "parallel_shared"}
    layers = ({},) * settings["n_layer"]
    spec = DecoderSpec(settings["vocab_size"], width, layers, block, positions=positions)
    return decoder_model(spec, settings, task, initializer)


def table(settings):
    heads, layer, ours = settings["n_head"], "h.{i}", "layers_{i}"
    sizes = {"h": heads, "d": settings["n_embd"] // heads}
    parts = [f"{ours}/attention/{name}" for name in ("query", "key", "value")]
    body = (
        WeightRow("wte.weight", "token_embedding/embeddings"),
        WeightRow("wpe.weight", "position_embedding/embeddings"),
        *layer_norm_rows(f"{layer}.ln", f"{ours}/attention_norm"),
        *fused_rows(f"{layer}.qkv", parts, "(h p d) i -> i (h p d)", "p", **sizes),
        *dense_rows(f"{layer}.out", f"{ours}/attention/output_dense"),
        *dense_rows(f"{layer}.up", f"{ours}/feed_forward/up"),
        *dense_rows(f"{layer}.down", f"{ours}/feed_forward/down"),
        *layer_norm_rows("ln_f", "norm"),
    )
    return Table(body, head=(WeightRow("score.weight", "score/kernel", "o i -> i o"),))


CLASSES = {"causal_lm": "ParallelForCausalLM", "embedding": "ParallelModel"}
FAMILY = Family(
    "outside_parallel",
    CLASSES | {"sequence_classification": "ParallelForSequenceClassification"},
    DEFAULTS,
    fixed={},
    build=build,
    table=table,
    step=step_model,
    keys=dict.fromkeys(SIZES, SIZE),
    keras_names={"hidden_dim": ("n_embd",), "num_layers": ("n_layer",), "num_heads": ("n_head",)},
    layer_counts={"layers_{i}": ("n_layer",)},
    shapes={"wte.weight": ("vocab_size", "n_embd"), "h.{i}.qkv.weight": ("3 * n_embd", "n_embd")},
)
