"""A PyTorch model as readable code: `model.py`, and its weights."""
