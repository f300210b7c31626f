"""Rewrites of the ONNX graph, one a file, each with its pattern, condition and rewrite."""
