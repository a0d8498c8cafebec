"""The ONNX graphs, one file an architecture, authored as `onnxscript.nn` modules.

Parameters carry the checkpoint's names, so binding weights is a comparison of names and shapes.
"""
