"""ONNX models: read without ONNX Runtime, changed in place of their protobuf, run to prove it."""
