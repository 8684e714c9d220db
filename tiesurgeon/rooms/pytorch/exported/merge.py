"""Programs in which PyTorch wrote a tied parameter under several names, with one name left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiesurgeon.damage import blamed
from tiesurgeon.rooms.pytorch.containers.zips import Archive
from tiesurgeon.rooms.pytorch.exported.content import Content
from tiesurgeon.rooms.pytorch.exported.document import ExportedDocument


def merge_aliases(
    path: Path, output: Path, provenance: Mapping[str, Any] | None = None
) -> tuple[tuple[str, str], ...]:
    """Writes a fresh export anew with each tied parameter once; gives the (source, target) pairs.

    A parameter that the program does not use, because another on the same bytes stands in its
    place, was tied when it was traced. Two that are both used were not, and stay two.
    """
    with blamed(path, "a PyTorch exported program"):
        content = Content(Archive(path))
        document = ExportedDocument(content)
        merged = []
        for source, target in content.second_names():
            document.tie(source, target, None)
            merged.append((source, target))
        document.write(output, provenance or {})
    return tuple(merged)
