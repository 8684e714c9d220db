"""Zip archives put together byte by byte, so that any number in them can lie."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NUMBERS = struct.pack("<3f", 2, 3, 5)


@dataclass
class Entry:
    """A member; `local` and `central` say otherwise in one of its two headers."""

    name: bytes
    data: bytes
    method: int = 0
    local: Mapping[str, Any] = field(default_factory=dict)
    central: Mapping[str, Any] = field(default_factory=dict)


def members() -> list[Entry]:
    """The least that a PyTorch archive has, with one storage."""
    return [
        Entry(b"m/data.pkl", b"\x80\x02N."),
        Entry(b"m/byteorder", b"little"),
        Entry(b"m/data/0", NUMBERS),
        Entry(b"m/version", b"3\n"),
    ]


def archive(
    entries: Sequence[Entry],
    *,
    front: bytes = b"",
    behind: bytes = b"",
    end: Mapping[str, Any] = {},
    wide: Mapping[str, Any] | None = None,
) -> bytes:
    """The archive; `end` changes its end record, `wide` adds and changes 64-bit ones."""
    data, directory = bytearray(front), bytearray()
    for entry in entries:
        body = entry.data
        if entry.method == 8:
            packer = zlib.compressobj(wbits=-15)
            body = packer.compress(body) + packer.flush()
        said: dict[str, Any] = {
            "name": entry.name,
            "flags": 0x800,
            "method": entry.method,
            "crc": zlib.crc32(entry.data),
            "packed": len(body),
            "size": len(entry.data),
            "extra": b"",
            "offset": len(data),
            "volume": 0,
            "attributes": 0,
        }
        data += local_header(**(said | {**entry.local})) + body
        directory += directory_entry(**(said | {**entry.central}))
    place: dict[str, Any] = {"start": len(data), "size": len(directory), "count": len(entries)}
    data += directory
    if wide is not None:
        data += wide_end(**(place | {"place": len(data), **wide}))
    return bytes(data + end_record(**(place | {**end})) + behind)


def local_header(
    name: bytes, flags: int, method: int, crc: int, packed: int, size: int, extra: bytes, **_: Any
) -> bytes:
    fields = (b"PK\3\4", 20, flags, method, 0, 0, crc, packed, size, len(name), len(extra))
    return struct.pack("<4s5H3L2H", *fields) + name + extra


def directory_entry(
    name: bytes,
    flags: int,
    method: int,
    crc: int,
    packed: int,
    size: int,
    extra: bytes,
    offset: int,
    volume: int,
    attributes: int,
) -> bytes:
    fields = (b"PK\1\2", 20, 20, flags, method, 0, 0, crc, packed, size, len(name), len(extra))
    rest = (0, volume, 0, attributes, offset)
    return struct.pack("<4s6H3L2H", *fields) + struct.pack("<3H2L", *rest) + name + extra


def end_record(
    start: int,
    size: int,
    count: int,
    here: int | None = None,
    disk: int = 0,
    comment: bytes = b"",
    length: int | None = None,
) -> bytes:
    here = count if here is None else here
    length = len(comment) if length is None else length
    return struct.pack("<4s4H2LH", b"PK\5\6", disk, 0, here, count, size, start, length) + comment


def wide_end(
    start: int, size: int, count: int, place: int, here: int | None = None, disks: int = 1
) -> bytes:
    here = count if here is None else here
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, here, count, size, start)
    return record + struct.pack("<4sLQL", b"PK\6\7", 0, place, disks)
