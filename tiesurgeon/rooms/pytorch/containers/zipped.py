"""`torch.save` and `torch.jit.save` since PyTorch 1.6: a zip archive with a pickle and storages."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Literal

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.graph import Array
from tiesurgeon.rooms.pytorch.containers.zip_writer import ArchiveWriter
from tiesurgeon.rooms.pytorch.containers.zips import Archive
from tiesurgeon.rooms.pytorch.streaming import raw_blocks
from tiesurgeon.rooms.pytorch.tensors import Extent

PICKLE = "data.pkl"
_STORAGES = "data/"
_BYTE_ORDER = "byteorder"
# Both speak of the file as it was: that storages 0, 1, 2, ... lie without gaps in the order of
# the pickle, so that readers may compute where; and a hash of the content. Both are optional.
_OF_THE_OLD_FILE = (".format_version", ".data/serialization_id")


class ZipContainer:
    """See `Container`. Members that are no storages are copied by `write` as they are."""

    kind: Literal["zip"] = "zip"

    def __init__(self, path: Path) -> None:
        self.archive = Archive(path)
        if not self.archive.root:
            raise UnreadableFile(
                "its members do not lie in one folder, as those of a PyTorch archive do"
            )
        if PICKLE not in self.archive.members:
            raise _no_pickle(self.archive)
        self._order = self._byte_order()
        self.swapped = self._order != sys.byteorder

    @property
    def names(self) -> tuple[str, ...]:
        """Members without the root."""
        return self.archive.names

    @cached_property
    def pickle(self) -> bytes:
        """The member `data.pkl`."""
        return self.archive.read(PICKLE)

    @property
    def writer(self) -> str:
        """PyTorch, which does not say its version, or its TorchScript."""
        return "PyTorch (TorchScript)" if "constants.pkl" in self.names else "PyTorch"

    def read(self, name: str) -> bytes:
        """A member, unpacked."""
        return self.archive.read(name)

    def extents(self, element_sizes: Mapping[str, int]) -> Mapping[str, Extent]:
        """Where the storages of these keys lie; the sizes are not needed here."""
        return {key: self.archive.extent(_STORAGES + key) for key in element_sizes}

    def write(
        self,
        path: Path,
        pickle: bytes,
        keep: Collection[str],
        replaced: Mapping[str, Array],
        extra: Mapping[str, bytes],
    ) -> None:
        """The same archive with another pickle, other storages and more members."""
        kept, new = set(keep), {_STORAGES + key: array for key, array in replaced.items()}
        whole = {PICKLE: pickle, **extra}
        with ArchiveWriter(path, self.archive.root) as writer:
            for name in self.names:
                is_storage = name.startswith(_STORAGES)
                if name in new:
                    self._add(writer, name, new.pop(name))
                elif name in whole:
                    data = whole.pop(name)
                    writer.add(name, [data], len(data))
                elif name in _OF_THE_OLD_FILE:
                    continue
                elif not is_storage or name.removeprefix(_STORAGES) in kept:
                    writer.copy(self.archive, name)
            for name, array in new.items():
                self._add(writer, name, array)
            for name, data in whole.items():
                writer.add(name, [data], len(data))

    def _add(self, writer: ArchiveWriter, name: str, array: Array) -> None:
        writer.add(name, raw_blocks(array, self._order), array.nbytes)

    def _byte_order(self) -> Literal["little", "big"]:
        """As the archive says; little where it does not, which is how PyTorch reads it."""
        if _BYTE_ORDER not in self.archive.members:
            return "little"
        found = self.archive.read(_BYTE_ORDER, limit=16)
        if found not in (b"little", b"big"):
            raise UnreadableFile(f"its member {_BYTE_ORDER!r} says {found!r}, not little or big")
        return "big" if found == b"big" else "little"


def _no_pickle(archive: Archive) -> UnsupportedFormat | UnreadableFile:
    if "model.json" in archive.members and any(n.startswith("tensors/") for n in archive.names):
        return UnsupportedFormat(
            "is TorchScript of PyTorch 1.0 or 1.1; load and save it with a PyTorch since 1.2"
        )
    return UnreadableFile(f"is a zip archive without {archive.root}/{PICKLE}: not of torch.save")
