"""A PyTorch graph into a folder: model.py, which people read and change, and its weights."""

from __future__ import annotations

from pathlib import Path

from tiesurgeon.graph import Graph, Storage
from tiesurgeon.rooms.pytorch.code.modules import ownership
from tiesurgeon.rooms.pytorch.code.source import model_source
from tiesurgeon.rooms.pytorch.safetensors.write import save


def write(graph: Graph, folder: Path, *, source: str, version: str) -> None:
    """Writes model.py and model.safetensors into an existing, empty folder.

    A tied parameter is stored once, under its owner's name; the header's metadata maps every
    other name to that one, as `safetensors.torch.save_model` does.
    """
    text = model_source(graph, source=source, version=version)
    owned = ownership(graph)
    tensors: dict[str, Storage] = {
        place.key: variable.storage for variable, place in owned.owners.items()
    }
    metadata = {use.key: owner.key for use, owner in owned.aliases}
    metadata |= {"format": "pt", "source": source, "writer": f"tiesurgeon {version}"}
    save(folder / "model.safetensors", tensors, metadata)
    (folder / "model.py").write_text(text, "utf-8")
