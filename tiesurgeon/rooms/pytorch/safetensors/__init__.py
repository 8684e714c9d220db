"""safetensors files: their header, their content as a graph, and new files of it.

The format: the length of the header as 8 bytes (little-endian), the header as JSON, padded
with spaces to a multiple of 8, then the numbers of every tensor, end to end.
https://huggingface.co/docs/safetensors
"""

from tiesurgeon.rooms.pytorch.safetensors.read import read_safetensors
from tiesurgeon.rooms.pytorch.safetensors.write import save, write_safetensors

__all__ = ["read_safetensors", "save", "write_safetensors"]
