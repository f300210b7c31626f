"""From Keras operations to ONNX nodes: one table per topic, one short function per operation."""

from keras_seqattn.onnx.lower.registry import lowers


def load_tables():
    """Import every table, which registers its lowerings."""
    from keras_seqattn.onnx.lower import algebra, attention, elementwise, shaping  # noqa: F401


__all__ = ["load_tables", "lowers"]
