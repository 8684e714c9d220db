"""The weight files of a folder: what they hold, and new ones in which only what changed is new."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from tiesurgeon.rooms.pytorch.huggingface.shards import Shards
from tiesurgeon.rooms.pytorch.safetensors.write import (
    PROVENANCE,
    Tensor,
    marked,
    write_tensors,
)
from tiesurgeon.rooms.pytorch.streaming import copy_file

_SIZE, _COUNT = "total_size", "total_parameters"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, the file of each, and the metadata of each file.

    A tensor that is the very object that was read has not changed.
    """

    tensors: Mapping[str, Tensor]
    places: Mapping[str, str]
    metadata: Mapping[str, Mapping[str, str]]

    def of(self, file: str) -> dict[str, Tensor]:
        """The tensors of one file, in its order."""
        return {name: self.tensors[name] for name, at in self.places.items() if at == file}


def write_weights(
    shards: Shards, before: Weights, after: Weights, target: Path, provenance: Mapping[str, Any]
) -> None:
    """Writes all weight files and their index to an empty folder.

    Files whose tensors are those that were read are copied, those with no tensor left are not
    written, and files of `torch.save` become safetensors.
    """
    source = shards.folder
    for file in shards.files:
        tensors = after.of(file)
        if not tensors:
            continue
        if not shards.are_pickled and _are_same(before.of(file), tensors):
            copy_file(source / file, target / file)
            continue
        kept = {k: text for k, text in before.metadata[file].items() if k != PROVENANCE}
        write_tensors(target / renamed(file), tensors, marked(provenance) | kept)
    if shards.index:
        _write_index(shards, before, after, target / renamed(shards.index))


def renamed(file: str) -> str:
    """The name of a weight file or index as safetensors: `pytorch_model.bin` becomes
    `model.safetensors`."""
    if ".bin" not in file:
        return file
    return file.removeprefix("pytorch_").replace(".bin", ".safetensors")


def _are_same(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> bool:
    return before.keys() == after.keys() and all(before[name] is after[name] for name in after)


def _write_index(shards: Shards, before: Weights, after: Weights, path: Path) -> None:
    metadata = dict(shards.metadata)
    metadata[_SIZE] = sum(tensor.nbytes for tensor in after.tensors.values())
    if isinstance(metadata.get(_COUNT), int):  # each parameter once, as the model has them
        metadata[_COUNT] += _count(after) - _count(before)
    placed = {name: renamed(file) for name, file in sorted(after.places.items())}
    index = {"metadata": metadata, "weight_map": placed}
    path.write_text(f"{json.dumps(index, indent=2, ensure_ascii=False)}\n", "utf-8")


def _count(weights: Weights) -> int:
    return sum(prod(tensor.shape) for tensor in weights.tensors.values())
