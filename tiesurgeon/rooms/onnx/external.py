"""External data of a tensor: only in regular files of the model's own folder.

Absolute paths, `..`, symbolic and hard links let a model read any file of its user:
CVE-2024-27318, CVE-2025-51480, CVE-2026-27489, CVE-2026-34445.
"""

from __future__ import annotations

import stat
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.onnx.payloads import Extent


def external_extent(tensor: Any, folder: Path, length: int) -> Extent:
    """Where the `length` bytes of a tensor lie.

    Raises UnreadableFile where they lie outside of the folder, or not wholly in the file.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = tensor.name
    path = _inside(name, entries.get("location", ""), folder)
    start = _number(name, entries, "offset", 0)
    size = path.stat().st_size
    claimed = _number(name, entries, "length", length)
    if claimed != length:
        raise UnreadableFile(
            f"tensor {name!r} has {claimed:,} bytes of external data, and its shape needs "
            f"{length:,}: damaged, or made to deceive"
        )
    if start + length > size:
        raise UnreadableFile(
            f"tensor {name!r} ends at byte {start + length:,} of {path.name}, which has {size:,}: "
            "cut short or not the file of this model, so get both again"
        )
    return Extent(path, start, length)


def _inside(name: str, location: str, folder: Path) -> Path:
    parts = PurePosixPath(location.replace("\\", "/")).parts
    is_absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not parts or is_absolute or ".." in parts or "\0" in location:
        raise UnreadableFile(
            f"tensor {name!r} keeps its numbers in {location!r}, outside of the model's folder, "
            "so it is not read"
        )
    path = folder
    for part in parts:
        path /= part
        if path.is_symlink():
            raise UnreadableFile(
                f"tensor {name!r} keeps its numbers in {location!r}, which is a symbolic link, so "
                "it is not read; put the file itself there"
            )
    if not path.exists():
        raise UnreadableFile(
            f"tensor {name!r} keeps its numbers in {location!r}, and there is no such file beside "
            "the model; get it too"
        )
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFile(
            f"tensor {name!r} keeps its numbers in {location!r}, which is no regular file"
        )
    if found.st_nlink > 1:
        raise UnreadableFile(
            f"tensor {name!r} keeps its numbers in {location!r}, which is a hard link to a file "
            "that has other names too, so it is not read; put a copy there"
        )
    return path


def _number(name: str, entries: dict[str, str], key: str, missing: int) -> int:
    text = entries.get(key, str(missing))
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise UnreadableFile(f"tensor {name!r} has {text!r} as the {key} of its external data")
    return int(text)
