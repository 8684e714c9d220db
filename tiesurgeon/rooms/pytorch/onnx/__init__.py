"""PyTorch modules as ONNX models, through PyTorch's own exporter."""
