"""A model's protobuf without its large tensors, which stay in the file, and with them again.

protobuf holds all that it parses in memory, several times over. So the numbers are cut out of
the bytes before they are parsed, and put in again when they are written.
https://protobuf.dev/programming-guides/encoding; field numbers: onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.onnx.payloads import Extent, Payloads, write_payload

_SMALLEST = 1 << 10  # bytes of numbers that are left in the file
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_DEEPEST = 100  # as protobuf's own parser

# Where tensors can be: message -> field -> the message in it.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_DATA_TYPE, _RAW, _EXTERNAL, _LOCATION = 2, 9, 13, 14
# Packed floats lie in the file just as raw numbers do: field -> data type.
_PACKED = {4: 1, 10: 11}

_Field = tuple[int, int, int, int, int]  # number, wire type, start, start of content, end


def skeleton(path: Path, payloads: Payloads) -> bytes:
    """The model's bytes with every tensor of 1 KB or more pointing into `payloads`.

    Raises UnreadableFile where the file is cut short or is no protobuf.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        pieces = _cut("model", data, 0, len(data), path, payloads, 0)
        return b"".join(pieces)


def _cut(
    kind: str, data: mmap.mmap, start: int, end: int, path: Path, payloads: Payloads, depth: int
) -> list[bytes]:
    if depth > _DEEPEST:
        raise UnreadableFile("its messages are nested too deeply to be a model")
    if kind == "tensor":
        return [_cut_tensor(data, start, end, path, payloads)]
    pieces: list[bytes] = []
    kept = start  # all before is in the pieces
    nested = _MESSAGES[kind]
    for number, wire, at, content, stop in _fields(data, start, end):
        if number in nested and wire == _BYTES and stop - content >= _SMALLEST:
            inner = _cut(nested[number], data, content, stop, path, payloads, depth + 1)
            pieces += [data[kept:at], _header(number, sum(map(len, inner))), *inner]
            kept = stop
    return [*pieces, data[kept:end]]


def _cut_tensor(data: mmap.mmap, start: int, end: int, path: Path, payloads: Payloads) -> bytes:
    fields = list(_fields(data, start, end))
    numbers = [field for field in fields if field[0] == _RAW or field[0] in _PACKED]
    says = {number: _varint(data, at, end)[0] for number, wire, _, at, _ in fields if not wire}
    is_outside = says.get(_LOCATION) == 1 or any(field[0] == _EXTERNAL for field in fields)
    if len(numbers) != 1 or is_outside:  # one place for numbers, or what it says is looked at whole
        return data[start:end]
    number, wire, _, content, stop = numbers[0]
    is_raw = number == _RAW or says.get(_DATA_TYPE) == _PACKED.get(number)
    if wire != _BYTES or not is_raw or stop - content < _SMALLEST:
        return data[start:end]
    place = payloads.add(Extent(path, content, stop - content))
    kept = (data[f[2] : f[4]] for f in fields if f[0] not in (number, _LOCATION))
    pointer = _entry("location", payloads.mark) + _entry("offset", str(place))
    return b"".join(kept) + pointer + bytes([_LOCATION << 3, 1])


def _entry(key: str, value: str) -> bytes:
    inner = _header(1, len(key)) + key.encode() + _header(2, len(value)) + value.encode()
    return _header(_EXTERNAL, len(inner)) + inner


def whole(model: bytes, payloads: Payloads) -> Iterator[bytes | int]:
    """The model's bytes in pieces, the numbers of payloads where their numbers come again."""
    pieces, _ = _fill("model", model, 0, len(model), payloads)
    yield from pieces


def write(pieces: Sequence[bytes | int], payloads: Payloads, file: IO[bytes]) -> None:
    """Appends the pieces to a file in bounded memory."""
    for piece in pieces:
        if isinstance(piece, int):
            write_payload(payloads[piece], file)
        else:
            file.write(piece)


def _fill(
    kind: str, data: bytes, start: int, end: int, payloads: Payloads
) -> tuple[list[bytes | int], int]:
    mark = payloads.mark.encode()
    if kind == "tensor":
        return _fill_tensor(data, start, end, payloads)
    pieces: list[bytes | int] = []
    size, kept = 0, start
    nested = _MESSAGES[kind]
    for number, wire, at, content, stop in _fields(data, start, end):
        if number in nested and wire == _BYTES and data.find(mark, content, stop) >= 0:
            inner, length = _fill(nested[number], data, content, stop, payloads)
            before = data[kept:at] + _header(number, length)
            pieces += [before, *inner]
            size += len(before) + length
            kept = stop
    pieces.append(data[kept:end])
    return pieces, size + end - kept


def _fill_tensor(
    data: bytes, start: int, end: int, payloads: Payloads
) -> tuple[list[bytes | int], int]:
    kept, place = b"", 0
    for number, _, at, content, stop in _fields(data, start, end):
        if number == _EXTERNAL:
            entry = [data[c:s] for _, _, _, c, s in _fields(data, content, stop)]
            place = int(entry[1]) if entry[0] == b"offset" else place
        elif number != _LOCATION:
            kept += data[at:stop]
    length = payloads[place].length
    head = kept + _header(_RAW, length)
    return [head, place], len(head) + length


def _fields(data: bytes | mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """The fields of a message that lies from `start` to `end`."""
    at = start
    while at < end:
        key, content = _varint(data, at, end)
        number, wire = key >> 3, key & 7
        if wire == _BYTES:
            length, content = _varint(data, content, end)
            stop = content + length
        elif wire == _VARINT:
            _, stop = _varint(data, content, end)
        elif wire in (_FIXED64, _FIXED32):
            stop = content + (8 if wire == _FIXED64 else 4)
        else:
            raise UnreadableFile(f"byte {at:,} starts no field of a protobuf: damaged, or no model")
        if stop > end:
            raise UnreadableFile(
                f"a field at byte {at:,} ends at {stop:,}, after the {end:,} that there are: cut "
                "short or damaged, so get the file again"
            )
        yield number, wire, at, content, stop
        at = stop


def _varint(data: bytes | mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise UnreadableFile(f"a number at byte {at:,} does not end: cut short or damaged")


def _header(number: int, length: int) -> bytes:
    return _number(number << 3 | _BYTES) + _number(length)


def _number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
