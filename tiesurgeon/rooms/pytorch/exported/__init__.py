"""Exported programs (`.pt2`): the graph, its signature and its weights, without PyTorch.

The layout is that of `torch.export.save` since PyTorch 2.8, the schema that of
https://github.com/pytorch/pytorch/blob/main/torch/_export/serde/schema.py
"""

from tiesurgeon.rooms.pytorch.exported.merge import merge_aliases
from tiesurgeon.rooms.pytorch.exported.read import read_exported

__all__ = ["merge_aliases", "read_exported"]
