"""The last bytes of a zip archive, which say where its directory lies.

Readers differ in what they do with an end record that lies (a comment that hides a second one,
bytes in front, two counts), so whatever they could disagree on is refused.
Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, 4.3.14 to 4.3.16.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from tiesurgeon.errors import UnreadableFile

_END = struct.Struct("<4s4H2LH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = 46  # bytes of the shortest directory entry
# 70,000 entries of a usual length; zipfile reads it as a whole and makes an object of each.
_LARGEST = 6 << 20


@dataclass(frozen=True)
class Directory:
    """Where the central directory lies, in bytes, and how many entries it has."""

    start: int
    size: int
    count: int


def find_directory(file: BinaryIO) -> Directory:
    """What the end records say, if all that they say agrees; else UnreadableFile."""
    size = file.seek(0, 2)
    tail = _last(file, size, _END.size + _LOCATOR.size + _END64.size)
    signature, *disks, here, count, length, start, comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or comment:
        raise UnreadableFile(
            "does not end as a zip archive does: cut short, or something stands behind it"
        )
    directory, end = Directory(start, length, count), size - _END.size
    if any(disks) or here != count:
        raise UnreadableFile("is one of several volumes of a zip archive")
    locator = tail[-_END.size - _LOCATOR.size : -_END.size]
    if locator.startswith(b"PK\x06\x07"):
        end -= _LOCATOR.size + _END64.size
        directory = _wide(tail, end, directory)
    if directory.start + directory.size != end:
        raise UnreadableFile(
            f"the directory of the zip archive should end at byte {end:,} and is said to lie at "
            f"{directory.start:,} to {directory.start + directory.size:,}"
        )
    if directory.size > _LARGEST or directory.count * _ENTRY > directory.size:
        raise UnreadableFile(
            f"the directory of the zip archive has {directory.size:,} bytes for "
            f"{directory.count:,} members"
        )
    return directory


def _last(file: BinaryIO, size: int, wanted: int) -> bytes:
    if size < _END.size:
        raise UnreadableFile(f"has {size} bytes, too few for a zip archive")
    file.seek(max(size - wanted, 0))
    return file.read(wanted).rjust(wanted, b"\0")


def _wide(tail: bytes, end: int, narrow: Directory) -> Directory:
    """The directory as the 64-bit record says, which the 32-bit one must not contradict."""
    _, disk, place, disks = _LOCATOR.unpack(tail[_END64.size : _END64.size + _LOCATOR.size])
    signature, length, _, _, *volumes, here, count, size, start = _END64.unpack(tail[: _END64.size])
    wide = Directory(start, size, count)
    agrees = (
        (narrow.start in (start, 0xFFFFFFFF))
        and (narrow.size in (size, 0xFFFFFFFF))
        and (narrow.count in (count, 0xFFFF))
    )
    sound = signature == b"PK\x06\x06" and length == _END64.size - 12 and place == end
    if not sound or not agrees or here != count or disk or disks != 1 or any(volumes):
        raise UnreadableFile("the 64-bit end record of the zip archive contradicts the rest of it")
    return wide
