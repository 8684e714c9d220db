"""Which files of a folder hold the weights, and what the index says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.huggingface.folder import member, read_json

_INDEX = ".index.json"
# In the order in which transformers looks for them.
_NAMES = (
    "model.safetensors",
    f"model.safetensors{_INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{_INDEX}",
)
_LARGEST_INDEX = 1 << 26
# Weights in other forms: they stay as they are, whatever happens to those that are read.
_OTHER_WEIGHTS = (".safetensors", ".bin", ".h5", ".msgpack", ".ot", ".onnx", ".pth", ".gguf")
_NO_WEIGHTS = frozenset({"training_args.bin", "optimizer.bin", "scheduler.bin"})


@dataclass(frozen=True)
class Shards:
    """The weight files that transformers would load.

    `files` are names in `folder`. `placed` maps each tensor to its file, as the index has it,
    whose name `index` is; both are empty without an index. `metadata` is the index's own.
    """

    folder: Path
    files: tuple[str, ...]
    index: str = ""
    placed: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def are_pickled(self) -> bool:
        """True for `.bin` files."""
        return self.files[0].endswith(".bin")


def find_shards(folder: Path) -> Shards:
    """The weight files of a folder; UnreadableFile if there are none, or if the index lies."""
    for name in _NAMES:
        if not (folder / name).exists():
            continue
        if not name.endswith(_INDEX):
            return Shards(folder, (member(folder, name).name,))
        return _indexed(folder, name)
    raise UnreadableFile(
        f"holds none of {', '.join(_NAMES)}; give the weight file itself instead of the folder"
    )


def _indexed(folder: Path, name: str) -> Shards:
    found = read_json(folder, name, _LARGEST_INDEX)
    placed = found.get("weight_map") if isinstance(found, dict) else None
    metadata = found.get("metadata", {}) if isinstance(found, dict) else None
    is_map = isinstance(placed, dict) and all(isinstance(file, str) for file in placed.values())
    if not placed or not is_map or not isinstance(metadata, dict):
        raise UnreadableFile(f"{name} has no weight_map from tensors to files")
    files = tuple(dict.fromkeys(placed.values()))
    suffix = ".bin" if ".bin" in name else ".safetensors"
    for file in files:
        member(folder, file)
        if not file.endswith(suffix):
            raise UnreadableFile(f"{name} names {file}, expected files that end in {suffix}")
    return Shards(folder, tuple(sorted(files)), name, placed, metadata)


def refuse_lies(shards: Shards, held: Mapping[str, str]) -> None:
    """UnreadableFile unless the index and the files, `held` from tensor to file, agree."""
    if not shards.index:
        return
    for name, file in shards.placed.items():
        if held.get(name) != file:
            raise UnreadableFile(f"{shards.index} says that {name} is in {file}, where it is not")
    for name, file in held.items():
        if name not in shards.placed:
            raise UnreadableFile(f"{file} holds {name}, which {shards.index} does not name")


def other_weights(shards: Shards) -> tuple[str, ...]:
    """Weight files of the folder that transformers would not load."""
    return tuple(
        sorted(
            path.name
            for path in shards.folder.iterdir()
            if path.name.endswith(_OTHER_WEIGHTS)
            and path.name not in shards.files
            and path.name not in _NO_WEIGHTS
        )
    )
