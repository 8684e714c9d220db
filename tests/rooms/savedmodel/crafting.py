"""Checkpoint indexes and protocol buffers made by hand, to say what no writer would."""

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from tiesurgeon.rooms.savedmodel import sstable
from tiesurgeon.rooms.savedmodel.sstable import masked_crc32c

MAGIC = 0xDB4775248B80FB57


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def entry(
    shape: tuple[int, ...], *, dtype: int = 1, shard: int = 0, offset: int = 0, size: int = 0
) -> bytes:
    dims = b"".join(field(2, field(1, dim)) for dim in shape)
    numbers = {1: dtype, 3: shard, 4: offset, 5: size}
    return field(2, dims) + b"".join(field(n, value) for n, value in numbers.items())


def block(data: bytes, compression: int = 0) -> bytes:
    body = data + bytes([compression])
    return body + struct.pack("<I", masked_crc32c(memoryview(body)))


def rows(entries: Mapping[bytes, bytes]) -> bytes:
    found = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value
        for key, value in entries.items()
    )
    return found + struct.pack("<II", 0, 1)


def table(entries: Mapping[bytes, bytes], compression: int = 0) -> bytes:
    return of_blocks([rows(entries)], compression)


def of_blocks(blocks: list[bytes], compression: int = 0) -> bytes:
    """A table of data blocks as they are given."""
    data, handles = b"", {}
    for number, content in enumerate(blocks):
        handles[bytes([number + 1])] = varint(len(data)) + varint(len(content))
        data += block(content, compression)
    content = rows(handles)
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(content))
    data += block(content)
    return data + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def rewrite(index: Path, change: Callable[[dict[bytes, bytes]], None]) -> None:
    """Changes the entries of an index, and makes its checksums right again."""
    read = sstable.entries(memoryview(index.read_bytes()))
    entries = {key: bytes(value) for key, value in read}
    change(entries)
    index.write_bytes(table(entries))
