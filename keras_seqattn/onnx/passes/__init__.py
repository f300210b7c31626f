"""Rewrites of the ONNX graph, one per file. Each states its pattern, condition and rewrite."""
