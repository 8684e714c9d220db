"""Keras graphs turned into PyTorch graphs, in numpy: `to_torch` is the way in."""
