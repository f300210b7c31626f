"""Brings the real tokens of each row of a decoder to the front, so that padding costs no attention.

onnxruntime's GroupQueryAttention reads rows that are filled from the front: its mask is a length
per row, and its rotation uses the slot in the cache. A row may have padding on the left, or in the
middle after an earlier step with padding on the right. Such a row would need an additive mask,
which is slower, and its own rotations (two more nodes and unpacked projections). With this pass,
the new tokens of each row are permuted once, so that real tokens are first. Before the logits, the
last hidden states are permuted back. A cache then holds the real tokens of each row, one after the
other.

Pattern: GroupQueryAttention nodes with a padding mask, after RotaryEmbedding or not.
Condition: the tokens reach the logits only through these nodes and through operators that treat
    each token separately. The nodes all have the same mask and no window.
Rewrite: no mask, the rotation inside the attention node, lengths per row. The tokens are permuted
    before the model, and the last hidden states after it.
"""

import onnx_ir as ir

from keras_seqattn.onnx.passes.building import insert, integer_constant, like
from keras_seqattn.onnx.passes.matching import inputs_of_role, is_op, is_weight

# Input slots of GroupQueryAttention.
_LENGTHS, _COS, _SIN, _BIAS = 5, 7, 8, 10

_TOKENWISE = {
    "Add", "BiasGelu", "Cast", "Gelu", "LayerNormalization", "Mul", "QuickGelu",
    "RMSNormalization", "Relu", "Sigmoid", "Split", "Sub", "Sum", "Tanh",
}  # fmt: skip


def apply(graph):
    """Rewrite `graph` in place if all of it fits the pattern. Otherwise it does not change."""
    ids, mask = (next(iter(inputs_of_role(graph, role)), None) for role in ("tokens", "mask"))
    attentions = [n for n in graph if is_op(n, "GroupQueryAttention", "com.microsoft")]
    if ids is None or mask is None or not attentions or any(n.op_type == "Scan" for n in graph):
        return
    rotations = [_rotation(node) for node in attentions]
    fits = all(_fits(n, r, mask) for n, r in zip(attentions, rotations, strict=True))
    if not fits or not _tokenwise(graph, ids, rotations):
        return
    build = _Builder(graph, ids, mask)
    for node, rotation in zip(attentions, rotations, strict=True):
        _rewrite_attention(node, rotation, build.lengths)
    _permute_tokens(graph, ids, build)


def _rotation(node):
    """The RotaryEmbedding nodes of query and key, if the attention node can replace them."""
    query, key = (v.producer() for v in node.inputs[:2])
    if not is_op(query, "RotaryEmbedding") or not is_op(key, "RotaryEmbedding"):
        return None
    head_dim = node.inputs[3].shape[3]
    alike = list(query.inputs[1:]) == list(key.inputs[1:]) and len(query.inputs) == 4
    modes = [n.attributes.get_int("interleaved", 0) for n in (query, key)]
    partial = "rotary_embedding_dim" in query.attributes
    if not alike or modes[0] != modes[1] or partial or head_dim % 16:
        return None
    return query, key


def _fits(node, rotation, mask):
    bias = node.inputs[_BIAS] if len(node.inputs) > _BIAS else None
    rotated = any(is_op(v.producer(), "RotaryEmbedding") for v in node.inputs[:2])
    padding_only = bias is not None and bias.meta.get("padding_of") is mask
    return (
        padding_only
        and "local_window_size" not in node.attributes
        and (bool(rotation) or not rotated)
    )


def _tokenwise(graph, ids, rotations):
    """Whether all values that depend on the tokens keep them separate, up to the logits."""
    rotary = {id(n) for pair in rotations if pair for n in pair}
    positions = {pair[0].inputs[3] for pair in rotations if pair}
    if any(id(use.node) not in rotary for value in positions for use in value.uses()):
        return False
    tokens, caches = {ids}, set()
    for node in graph:
        inside = [v for v in node.inputs if v in tokens]
        if any(v in caches for v in node.inputs):
            return False
        if not inside or node.op_type == "Shape":
            continue
        if node.op_type == "GroupQueryAttention":
            tokens.add(node.outputs[0])
            caches.update(node.outputs[1:])
        elif id(node) in rotary or _keeps_tokens_apart(node, tokens):
            tokens.update(node.outputs)
        else:
            return False
    outputs = [v for v in graph.outputs if v not in caches]
    return len(outputs) == 1 and outputs[0] in tokens


def _keeps_tokens_apart(node, tokens):
    if node.op_type in _TOKENWISE:
        return all(v in tokens or _constant(v) for v in node.inputs)
    if node.op_type in ("MatMul", "FusedMatMul"):
        return is_weight(node.inputs[1], 2) or is_op(node.inputs[1].producer(), "Transpose")
    if node.op_type == "Gather":
        return _constant(node.inputs[0]) and node.inputs[1] in tokens
    if node.op_type == "Reshape" and _constant(node.inputs[1]):
        return node.inputs[1].const_value.numpy()[:2].tolist() == [0, 0]
    return False


def _constant(value):
    return value is None or value.const_value is not None


def _rewrite_attention(node, rotation, lengths):
    node.replace_input_with(_BIAS, None)
    node.replace_input_with(_LENGTHS, lengths)
    if rotation is None:
        return
    query, key = rotation
    for slot, value in ((0, query.inputs[0]), (1, key.inputs[0]), (_COS, query.inputs[1]),
                        (_SIN, query.inputs[2])):  # fmt: skip
        node.replace_input_with(slot, value)
    node.attributes["do_rotary"] = ir.AttrInt64("do_rotary", 1)
    interleaved = query.attributes.get_int("interleaved", 0)
    node.attributes["rotary_interleaved"] = ir.AttrInt64("rotary_interleaved", interleaved)


def _permute_tokens(graph, ids, build):
    """Use the new order of tokens in the model, and the old order of hidden states for logits."""
    for use in list(ids.uses()):
        if is_op(use.node, "Gather") and use.idx == 1:
            use.node.replace_input_with(1, build.tokens)
    logits = next(v for v in graph.outputs if v.producer().op_type != "GroupQueryAttention")
    head = logits.producer()
    hidden = head.inputs[0]
    (restored,) = insert(
        head,
        "GatherND",
        [hidden, build.places],
        {"batch_dims": 1},
        name="compact/restored",
        outputs=[like("compact/restored", hidden)],
    )
    head.replace_input_with(0, restored)


class _Builder:
    """Emits the values for the rewrite, before all other nodes.

    Attributes:
        tokens: int64 (b, t), the new tokens, real ones first.
        places: int64 (b, t, 1), the new place of each token.
        lengths: int32 (b,), the input seqlens_k of GroupQueryAttention: the number of real keys,
            including new tokens, minus one.
    """

    def __init__(self, graph, ids, mask):
        self.graph, self.count = graph, 0
        self.first = next(iter(graph))
        zero, one = self.constant("zero", [0]), self.constant("one", [1])
        length = self.emit("Shape", [ids], {"start": 1, "end": 2})
        total = self.emit("Shape", [mask], {"start": 1, "end": 2})
        past = self.emit("Sub", [total, length])
        new = self.emit("Slice", [mask, past, total, one])
        seen = self.emit("CumSum", [new, self.constant("axis", 1)])
        real = self.emit("ReduceSum", [new, one], {"keepdims": 1})
        scalar = self.emit("Squeeze", [length, zero])
        slots = self.emit("Range", [self.constant("start", 0), scalar, self.constant("step", 1)])
        behind = self.emit("Sub", [self.emit("Add", [real, slots]), seen])
        is_real = self.emit("Cast", [new], {"to": int(ir.DataType.BOOL)})
        place = self.emit("Where", [is_real, self.emit("Sub", [seen, one]), behind])
        spread = self.emit("Expand", [slots, self.emit("Shape", [new])])
        order = self.emit("ScatterElements", [new, place, spread], {"axis": 1})
        self.tokens = self.emit("GatherElements", [ids, order], {"axis": 1})
        self.places = self.emit("Unsqueeze", [place, self.constant("last", [2])])
        old = self.emit("Slice", [mask, zero, past, one])
        kept = self.emit("ReduceSum", [old, one], {"keepdims": 0})
        ends = self.emit("Add", [kept, self.emit("Sub", [length, one])])
        self.lengths = self.emit("Cast", [ends], {"to": int(ir.DataType.INT32)})

    def constant(self, name, content):
        return integer_constant(self.graph, f"compact/{name}", content)

    def emit(self, op_type, inputs, attributes=None):
        self.count += 1
        return insert(
            self.first, op_type, inputs, attributes, name=f"compact/{op_type}_{self.count}"
        )
