"""ONNX export: trace the Keras model, lower it for a target, write it, prove it."""

from keras_seqattn.onnx.bundle import export, write_onnx
from keras_seqattn.onnx.graph import build_graph, build_graphs
from keras_seqattn.onnx.lower.registry import lowers
from keras_seqattn.onnx.precisions import Precision, register_precision
from keras_seqattn.onnx.report import Report
from keras_seqattn.onnx.targets import Target, register_target
from keras_seqattn.onnx.verify import verify

__all__ = [
    "Precision",
    "Report",
    "Target",
    "build_graph",
    "build_graphs",
    "export",
    "lowers",
    "register_precision",
    "register_target",
    "verify",
    "write_onnx",
]
