"""Protocol buffers, field by field, without their schema: only what is asked for is looked at.

The runtime's generated classes would read a whole file at once; here a field of 2 GB that
nobody wants costs nothing.
Format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiesurgeon.errors import UnreadableFile

Bytes = memoryview
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_WIDTH = {_FIXED64: 8, _FIXED32: 4}


def varint(data: Bytes, at: int) -> tuple[int, int]:
    """An unsigned number below 2**64, and the place after it; UnreadableFile if it has no end."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise UnreadableFile("a number in it has no end; the file is damaged")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at


def signed(value: int) -> int:
    """An int32 or int64, which the wire holds as its two's complement of 64 bits."""
    return value - (1 << 64) if value >> 63 else value


def fields(data: Bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of one message: an int, or the bytes of anything longer."""
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = varint(data, at)
            yield number, value
            continue
        if kind == _LENGTH:
            length, at = varint(data, at)
        elif kind in _WIDTH:
            length = _WIDTH[kind]
        else:
            raise UnreadableFile(f"a field in it is of kind {kind}; the file is damaged")
        if length > len(data) - at:
            raise UnreadableFile(f"a field in it claims {length:,} bytes; the file is damaged")
        part = data[at : at + length]
        yield number, int.from_bytes(part, "little") if kind in _WIDTH else part
        at += length


def parts(data: Bytes, number: int) -> Iterator[Bytes]:
    """The bytes of each field of that number: strings, or messages."""
    for found, value in fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def part(data: Bytes, number: int) -> Bytes:
    """The last such field, which is the one that counts; empty if there is none."""
    found = Bytes(b"")
    for value in parts(data, number):
        found = value
    return found


def text(data: Bytes, number: int) -> str:
    """A string field; "" if it is left out."""
    return str(part(data, number), "utf-8")


def number(data: Bytes, wanted: int) -> int:
    """An unsigned field; 0 if it is left out."""
    found = 0
    for name, value in fields(data):
        if name == wanted and isinstance(value, int):
            found = value
    return found


def pairs(data: Bytes, number: int) -> Iterator[tuple[str, Bytes]]:
    """The entries of a map from strings to messages."""
    for entry in parts(data, number):
        yield text(entry, 1), part(entry, 2)
