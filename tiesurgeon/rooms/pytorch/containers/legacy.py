"""`torch.save` before PyTorch 1.6, and since then on request: pickles and storages end to end.

A magic number, the protocol, facts of the machine, the object and the list of storage keys, each
a pickle; then for every key how many numbers (int64) and the numbers, in little-endian order.
Format: `_legacy_save` in torch/serialization.py and `THPStorage_writeFileRaw`.
"""

from __future__ import annotations

import mmap
import pickle as pickles
import re
import struct
import sys
import tarfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.graph import Array
from tiesurgeon.rooms.pytorch.containers.opcodes import end_of_pickle, list_of_strings
from tiesurgeon.rooms.pytorch.streaming import copy_extent, write_array
from tiesurgeon.rooms.pytorch.tensors import Extent

_LARGEST_PICKLE = 1 << 26
_LARGEST_FACTS = 1 << 16  # byte order, sizes of C types
_COUNT = struct.Struct("<q")

# Magic number and protocol, as any protocol of pickle writes them.
_MAGIC = re.compile(
    rb"(?:\x80[\2-\5](?:\x95\x0d\0{7})?\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
    rb"|L119547037146038801333356L\n)\."
)
_PROTOCOL = re.compile(rb"(?:\x80[\2-\5](?:\x95\x04\0{7})?)?(?:M\xe9\x03|I1001\n)\.")


def is_legacy(head: bytes) -> bool:
    """True for the first 512 bytes of such a file; UnsupportedFormat if they are a tar header."""
    # PyTorch tries tar first, whatever else the bytes may be.
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return _MAGIC.match(head) is not None
    raise UnsupportedFormat(
        "is a tar archive, as PyTorch before 0.1.10 wrote them; load it with torch.load "
        "(weights_only=False, so only if you trust it) and save it again"
    )


class LegacyContainer:
    """See `Container`. `extents` must be asked for before `write`, which copies what they say."""

    kind: Literal["legacy"] = "legacy"
    names: tuple[str, ...] = ()
    writer = "PyTorch"
    swapped = sys.byteorder != "little"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._extents: dict[str, Extent] = {}
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            self._size = len(data)
            facts = _after(_PROTOCOL, data, _after(_MAGIC, data, 0))
            self._start = end_of_pickle(data, facts, _LARGEST_FACTS)
            self._end = end_of_pickle(data, self._start, _LARGEST_PICKLE)
            self._keys, self._storages = list_of_strings(data, self._end, _LARGEST_PICKLE)
        if len(set(self._keys)) < len(self._keys):
            raise UnreadableFile("lists a storage twice")

    @property
    def pickle(self) -> bytes:
        """The fourth pickle, which is the object."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            return file.read(self._end - self._start)

    def read(self, name: str) -> bytes:
        """KeyError: there are no members."""
        raise KeyError(name)

    def extents(self, element_sizes: Mapping[str, int]) -> Mapping[str, Extent]:
        """Where each storage lies, found by going from one to the next."""
        if missing := sorted(element_sizes.keys() - set(self._keys)):
            raise UnreadableFile(f"its storage {missing[0]!r} is missing")
        found, place = {}, self._storages
        with self._path.open("rb") as file:
            for key in self._keys:
                if key not in element_sizes:
                    raise UnreadableFile(f"has a storage {key!r} that its pickle does not name")
                length = self._length(file, key, place, element_sizes[key])
                found[key] = Extent(self._path, place + _COUNT.size, length)
                place += _COUNT.size + length
        if place != self._size:
            raise UnreadableFile(
                f"has {self._size - place:,} bytes behind its last storage: more than one object "
                "was saved into it, or it is damaged"
            )
        self._extents = found
        return found

    def _length(self, file: BinaryIO, key: str, place: int, element_size: int) -> int:
        file.seek(place)
        data = file.read(_COUNT.size)
        if len(data) < _COUNT.size:
            raise UnreadableFile(f"ends before its storage {key!r}: cut short")
        [count] = _COUNT.unpack(data)
        left = self._size - place - _COUNT.size
        if not 0 <= count * element_size <= left:
            raise UnreadableFile(
                f"its storage {key!r} is said to have {count:,} numbers of {element_size} bytes, "
                f"where {left:,} bytes are left: cut short, or made to deceive"
            )
        return int(count * element_size)

    def write(
        self,
        path: Path,
        pickle: bytes,
        keep: Collection[str],
        replaced: Mapping[str, Array],
        extra: Mapping[str, bytes],
    ) -> None:
        """The same stream with another pickle and other storages; `extra` has no place in it."""
        kept = [key for key in self._keys if key in set(keep) - replaced.keys()]
        with path.open("wb") as target:
            copy_extent(Extent(self._path, 0, self._start), target)
            target.write(pickle)
            target.write(pickles.dumps([*kept, *replaced], protocol=2))
            for key in kept:
                extent = self._extents[key]
                start, length = extent.start - _COUNT.size, extent.length + _COUNT.size
                copy_extent(Extent(self._path, start, length), target)
            for array in replaced.values():
                target.write(_COUNT.pack(array.size))
                write_array(array, target)


def _after(what: re.Pattern[bytes], data: mmap.mmap, start: int) -> int:
    found = what.match(data, start)
    if found is None:
        raise UnreadableFile("does not begin as a file of torch.save does")
    return found.end()
