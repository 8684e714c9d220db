"""PyTorch files that hold a pickle: understood, and changed, without running them."""

from tiesurgeon.rooms.pytorch.pickles.read import read_pickled

__all__ = ["read_pickled"]
