"""Rewrites of the ONNX graph, one a file; each states its pattern and its conditions."""
