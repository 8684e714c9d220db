"""Files of a folder, taken only from within it."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.streaming import copy_file


def member(folder: Path, name: str) -> Path:
    """The file of that name right in the folder.

    Raises UnreadableFile for a name that leads elsewhere, a link that leaves the folder, and a
    file that is missing. The cache of huggingface_hub, whose snapshots link to the blobs beside
    them, is as good as a folder.
    """
    if name in ("", ".", "..") or not {"/", "\\", "\0"}.isdisjoint(name):
        raise UnreadableFile(f"names the file {name!r}, which is not in the folder")
    path = folder / name
    _refuse_leaving(folder, path)
    if not path.is_file():
        raise UnreadableFile(f"{name} is missing")
    return path


def _refuse_leaving(folder: Path, path: Path) -> None:
    root, target = folder.resolve(), path.resolve()
    if target.is_relative_to(root):
        return
    if root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs":
        return
    raise UnreadableFile(f"{path.relative_to(folder)} is a link that leaves the folder")


def read_json(folder: Path, name: str, largest: int) -> Any:
    """A JSON file of the folder, of at most `largest` bytes."""
    path = member(folder, name)
    size = path.stat().st_size
    if size > largest:
        raise UnreadableFile(f"{name} has {size:,} bytes, so is no file of that kind")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise UnreadableFile(f"{name} is not JSON ({error})") from None


def copy_others(folder: Path, target: Path, without: Collection[str]) -> None:
    """Copies all files, those in folders below included, but for names right in the folder."""
    for path in _files(folder):
        relative = path.relative_to(folder)
        if str(relative) in without:
            continue
        _refuse_leaving(folder, path)
        (target / relative).parent.mkdir(parents=True, exist_ok=True)
        copy_file(path, target / relative)


def _files(folder: Path) -> Iterator[Path]:
    """Files in order; links to folders are not followed."""
    for at, _, names in os.walk(folder):
        for name in sorted(names):
            if (path := Path(at, name)).is_file():
                yield path
