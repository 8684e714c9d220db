"""PyTorch: readable modules and their weights."""
