"""The static proof of a PyTorch folder: the weights, read again, are the ones that were meant."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from tiesurgeon.errors import ProofFailed
from tiesurgeon.graph import Graph
from tiesurgeon.rooms.pytorch.code.modules import BUFFERS, ownership


def check_folder(graph: Graph, folder: Path) -> None:
    """ProofFailed unless `model.py` parses and `model.safetensors` holds each variable once."""
    ast.parse((folder / "model.py").read_text(encoding="utf-8"))
    owned = ownership(graph)
    meant = {place.key: variable.storage for variable, place in owned.owners.items()}
    try:
        with safe_open(folder / "model.safetensors", framework="numpy") as file:
            if set(file.keys()) != set(meant):
                odd = sorted(set(file.keys()) ^ set(meant))[0]
                raise ProofFailed(f"model.safetensors: {odd} is not where it was written")
            for name, storage in meant.items():
                array = storage.load()
                if file.get_tensor(name).tobytes() != np.ascontiguousarray(array).tobytes():
                    raise ProofFailed(f"model.safetensors: {name} holds other numbers")
    except SafetensorError as error:
        raise ProofFailed(f"model.safetensors cannot be read again ({error})") from None


def tied_names(graph: Graph) -> list[list[str]]:
    """For each Parameter with several names: all of them, its owner's first. No buffers."""
    owned = ownership(graph)
    groups: dict[str, list[str]] = {}
    for use, owner in owned.aliases:
        if use.view.role in BUFFERS:
            continue
        groups.setdefault(owner.key, [owner.key]).append(use.key)
    return list(groups.values())
