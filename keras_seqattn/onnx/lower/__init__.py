"""Lowers Keras operations to ONNX nodes: one table per topic, one short function per operation."""

from keras_seqattn.onnx.lower.registry import lowers


def load_tables():
    """Import every table, which registers its lowerings."""
    # A later table overrides an earlier one.
    from keras_seqattn.onnx.lower import elementwise, shaping, algebra, attention  # noqa: F401, I001
    from keras_seqattn.onnx.lower import activations, integers, reductions, special  # noqa: F401
    from keras_seqattn.onnx.lower import losses, products, series, statistics  # noqa: F401
    from keras_seqattn.onnx.lower import branch, cache, recurrent, scan  # noqa: F401
    from keras_seqattn.onnx.lower import image, preprocessing, resampling, sampling  # noqa: F401
    from keras_seqattn.onnx.lower import fourier, lookup, spectrograms, windows  # noqa: F401
    from keras_seqattn.onnx.lower import foreign, recurrent_convolution  # noqa: F401
    from keras_seqattn.onnx.lower import convolution, normalization, pooling  # noqa: F401
    from keras_seqattn.onnx.lower import filling, indexing, joining, linalg, loops, moving  # noqa: F401
    from keras_seqattn.onnx.lower import norms, random, scatter, sorting, spectral  # noqa: F401
    from keras_seqattn.onnx.lower import lora, quantized  # noqa: F401
    from keras_seqattn.onnx.lower import hub  # noqa: F401


__all__ = ["load_tables", "lowers"]
