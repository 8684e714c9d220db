"""Where an HDF5 file lies: a file of its own, or a member of a `.keras` archive."""

from __future__ import annotations

import shutil
import struct
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import h5py

from tiesurgeon.errors import UnreadableFile

WEIGHTS_MEMBER = "model.weights.h5"
_BLOCK = 1 << 20
_FREE_BYTES = 1 << 26
_MOST_UNPACKED = 50  # times; trained numbers hardly shrink at all


@dataclass(frozen=True, eq=False)
class Source:
    """`path` holds the HDF5 file: it is one, or has it as a member that is not compressed."""

    path: Path
    member: str | None = None

    @contextmanager
    def open(self) -> Iterator[h5py.File]:
        """The opened HDF5 file."""
        with self._stream() as stream, h5py.File(stream, "r") as file:
            yield file

    @contextmanager
    def _stream(self) -> Iterator[IO[bytes] | Path]:
        if self.member is None:
            yield self.path
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
            yield stream

    def start(self) -> int:
        """Byte at which the HDF5 file starts in `path`."""
        if self.member is None:
            return 0
        with zipfile.ZipFile(self.path) as archive, self.path.open("rb") as raw:
            offset = archive.getinfo(self.member).header_offset
            raw.seek(offset + 26)  # the local header's lengths are the true ones
            name_length, extra_length = struct.unpack("<HH", raw.read(4))
        return int(offset + 30 + name_length + extra_length)


def in_archive(archive: zipfile.ZipFile, path: Path) -> Source:
    """The weights of a `.keras` archive, unpacked into a temporary file if they are compressed."""
    info = archive.getinfo(WEIGHTS_MEMBER)
    if info.compress_type == zipfile.ZIP_STORED:
        return Source(path, WEIGHTS_MEMBER)
    if info.file_size > max(_FREE_BYTES, _MOST_UNPACKED * info.compress_size):
        raise UnreadableFile(f"{WEIGHTS_MEMBER} would unpack to {info.file_size:,} bytes")
    folder = tempfile.mkdtemp(prefix="tiesurgeon-")
    source = Source(Path(folder, WEIGHTS_MEMBER))
    weakref.finalize(source, shutil.rmtree, folder, ignore_errors=True)
    with archive.open(info) as packed, source.path.open("wb") as plain:
        while block := packed.read(_BLOCK):
            plain.write(block)
    return source
