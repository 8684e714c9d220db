"""Hugging Face model folders: a config, weights in one file or several, and all that goes along."""

from tiesurgeon.rooms.pytorch.huggingface.read import read_folder

__all__ = ["read_folder"]
