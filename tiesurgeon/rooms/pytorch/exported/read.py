"""Exported programs -> graph and document, without PyTorch."""

from __future__ import annotations

from pathlib import Path

from tiesurgeon.damage import blamed
from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.pytorch.containers.zips import Archive
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.rooms.pytorch.exported.content import MODEL, Content
from tiesurgeon.rooms.pytorch.exported.document import ExportedDocument
from tiesurgeon.rooms.pytorch.exported.payloads import CONSTANTS, WEIGHTS

_OLD = "serialized_exported_program.json"


def read_exported(path: Path) -> TorchFile:
    """Reads a `.pt2` file of `torch.export.save`.

    Layers are the modules that were traced, and functions where no layer of `torch.nn` or other
    holder of weights claims a node. A weight that two layers compute with is one variable; two
    names for the same bytes are two variables on one storage. Raises UnreadableFile for a
    damaged file, UnsupportedFormat for the layout of PyTorch up to 2.7.
    """
    with blamed(path, "a PyTorch exported program"):
        archive = Archive(path)
        _refuse_others(archive)
        content = Content(archive)
        return TorchFile(
            format="torch-export",
            graph=content.graph(path.stem),
            writer=f"PyTorch {content.program.raw.get('torch_version', '')}".strip(),
            document=ExportedDocument(content),
            notes=content.notes(),
        )


def _refuse_others(archive: Archive) -> None:
    if _OLD in archive.members:
        raise UnsupportedFormat(
            "is an exported program in the layout of PyTorch up to 2.7; write it anew: "
            'torch.export.save(torch.export.load("old.pt2"), "new.pt2") in PyTorch 2.8 or later'
        )
    for name in (f"{WEIGHTS}model.pt", f"{CONSTANTS}model.pt"):
        if name in archive.members:
            raise UnsupportedFormat(
                f"keeps its tensors as a pickle ({name}), as early versions of this layout did; "
                "load it with torch.export.load and save it again"
            )
    if MODEL not in archive.members:
        raise UnreadableFile(f"is an archive without {MODEL}, so holds no exported program")
    if "byteorder" in archive.members and archive.read("byteorder", limit=16) != b"little":
        raise UnsupportedFormat(
            "was written on a big-endian machine, whose numbers torch.export.load misreads too"
        )
