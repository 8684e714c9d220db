"""Any PyTorch file or folder -> its graph and its document, without PyTorch."""

from __future__ import annotations

from pathlib import Path

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.formats import recognise
from tiesurgeon.rooms.pytorch.document import TorchFile


def read(path: Path, *, config: Path | None = None) -> TorchFile:
    """Reads a PyTorch file of any kind, or a Hugging Face folder.

    Raises UnreadableFile with one line where the file is not what it should be, and
    UnsupportedFormat for a `config`, which only Keras' weights need.
    """
    if config is not None:
        raise UnsupportedFormat(
            f"{path}: --config is for Keras weights, and this is a PyTorch file"
        )
    return read_as(path, recognise(path).name)


def read_as(path: Path, kind: str) -> TorchFile:
    """The same where the name of the format, as `formats.recognise` gives it, is known."""
    with blamed(path, "a PyTorch model"):
        if kind == "safetensors":
            from tiesurgeon.rooms.pytorch.safetensors import read_safetensors

            return read_safetensors(path)
        if kind == "huggingface":
            from tiesurgeon.rooms.pytorch.huggingface import read_folder

            return read_folder(path)
        if kind == "torch-export":
            from tiesurgeon.rooms.pytorch.exported import read_exported

            return read_exported(path)
        from tiesurgeon.rooms.pytorch.pickles import read_pickled

        return read_pickled(path)


def refuse_config(path: Path, config: Path | None) -> None:
    """UnsupportedFormat for a `--config`."""
    if config is not None:
        raise UnsupportedFormat(f"{path}: --config is for Keras weights, not for PyTorch files")
