"""Zip archives written as PyTorch lays them out: nothing compressed, bytes at multiples of 64."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

from tiesurgeon.rooms.pytorch.containers.zips import Archive
from tiesurgeon.rooms.pytorch.streaming import copy_extent
from tiesurgeon.rooms.pytorch.tensors import Extent

_ALIGNMENT = 64
_CRC_PLACE = 14  # in a local header
_NO_DATE = (1980, 0, 0, 0, 0, 0)  # as PyTorch writes it


class ArchiveWriter:
    """A new zip archive, whose members lie in the folder `root` and are written one by one.

    To be used in `with`. `zipfile` writes the headers and the directory; the bytes go past it,
    because it has no way to copy a member as it is.
    """

    def __init__(self, path: Path, root: str) -> None:
        self._root = root
        self._zip = zipfile.ZipFile(path, "w")
        self._file = cast(BinaryIO, self._zip.fp)

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._zip.close()

    def copy(self, archive: Archive, name: str) -> None:
        """A member of another archive, byte by byte, its checksum believed."""
        member = archive.members[name]
        info = self._info(name)
        info.CRC, info.compress_type = member.crc, member.method
        info.file_size, info.compress_size = member.size, member.packed
        self._start(info)
        copy_extent(Extent(archive.path, member.start, member.packed), self._file)
        self._finish(info)

    def add(self, name: str, blocks: Iterable[bytes | memoryview], size: int) -> None:
        """A new member of `size` bytes, which come in blocks."""
        info = self._info(name)
        info.file_size = info.compress_size = size
        self._start(info)
        written = 0
        for block in blocks:
            info.CRC = zlib.crc32(block, info.CRC)
            written += self._file.write(block)
        if written != size:
            raise AssertionError(f"{name}: {written} bytes where {size} were announced")
        self._file.seek(info.header_offset + _CRC_PLACE)
        self._file.write(struct.pack("<L", info.CRC))
        self._finish(info)

    def _info(self, name: str) -> zipfile.ZipInfo:
        info = zipfile.ZipInfo(f"{self._root}/{name}" if self._root else name, _NO_DATE)
        info.create_system = 0
        info.CRC = 0
        return info

    def _start(self, info: zipfile.ZipInfo) -> None:
        """Writes the local header, padded by a field "FB" as PyTorch does."""
        info.header_offset = self._file.seek(0, 2)
        end = info.header_offset + len(info.FileHeader()) + 4
        padding = -end % _ALIGNMENT
        info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
        self._file.write(info.FileHeader())
        info.extra = b""  # the directory does without

    def _finish(self, info: zipfile.ZipInfo) -> None:
        self._zip.filelist.append(info)
        self._zip.NameToInfo[info.filename] = info
        self._zip.start_dir = self._file.seek(0, 2)
