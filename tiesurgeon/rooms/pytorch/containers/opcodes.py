"""Where a pickle ends and what its opcodes carry, without decoding it.

An argument is only pointed at, never read, so a length that lies costs nothing.
Opcodes and how their arguments lie: the tables of `pickletools`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from mmap import mmap

from tiesurgeon.errors import UnreadableFile

Data = bytes | mmap
Opcode = tuple[str, int, int]  # name, and where the argument starts and ends

_MOST_OPCODES = 20_000_000
_STRINGS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"}
_LETTERS = {"EMPTY_LIST": "e", "MARK": "m", "LIST": "l", "APPEND": "a", "APPENDS": "A"}
_NOTHING = {"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP"}
_LIST_OF_STRINGS = re.compile("(e|ml)(sa|ms+A)*")


def walk(data: Data, start: int, limit: int) -> Iterator[Opcode]:
    """The opcodes of the pickle at `start`, the last of them STOP.

    Raises UnreadableFile if it does not end within `limit` bytes, or within the data, or not
    where its frames end, which readers take differently.
    """
    table, place, frame = _table(), start, start
    last = min(len(data), start + limit)
    for _ in range(_MOST_OPCODES):
        if place >= last:
            break
        code = data[place]
        if code not in table:
            raise UnreadableFile(f"byte {place:,} is {code:#04x}, which is no opcode of a pickle")
        name, size, lines = table[code]
        begin = place + 1
        end = _after_lines(data, begin, last, lines) if lines > 0 else begin + size
        if lines < 0:
            begin, end = end, end + int.from_bytes(data[begin:end], "little")
        if end > last:
            break
        yield name, begin, end
        if name == "FRAME":
            if place < frame:
                raise UnreadableFile(f"byte {place:,} begins a frame inside another one")
            frame = end + int.from_bytes(data[begin:end], "little")
        if name == "STOP":
            if end < frame:
                raise UnreadableFile(f"the pickle at byte {start:,} ends inside a frame")
            return
        place = end
    else:
        raise UnreadableFile(f"the pickle at byte {start:,} has over {_MOST_OPCODES:,} opcodes")
    reason = "is cut short" if last == len(data) else f"has more than {limit:,} bytes"
    raise UnreadableFile(f"the pickle at byte {start:,} {reason}")


def end_of_pickle(data: Data, start: int, limit: int) -> int:
    """The byte after the pickle at `start`; raises as `walk`."""
    return max(end for _, _, end in walk(data, start, limit))


def list_of_strings(data: Data, start: int, limit: int) -> tuple[list[str], int]:
    """The strings of a pickle that is a list of strings and nothing else, and where it ends."""
    strings, shape, end = [], [], start
    for name, begin, end in walk(data, start, limit):
        if name in _STRINGS:
            shape.append("s")
            strings.append(bytes(data[begin:end]).rstrip(b"\n").decode())
        elif name not in _NOTHING:
            shape.append(_LETTERS.get(name, "?"))
    if not _LIST_OF_STRINGS.fullmatch("".join(shape)):
        raise UnreadableFile(f"the pickle at byte {start:,} is not a plain list of names")
    return strings, end


@cache
def _table() -> Mapping[int, tuple[str, int, int]]:
    """Name, bytes of the argument, and lines instead of bytes (-1: the bytes are a length)."""
    import pickletools

    prefixes = {
        pickletools.TAKEN_FROM_ARGUMENT1: 1,
        pickletools.TAKEN_FROM_ARGUMENT4: 4,
        pickletools.TAKEN_FROM_ARGUMENT4U: 4,
        pickletools.TAKEN_FROM_ARGUMENT8U: 8,
    }
    table = {}
    for code in pickletools.opcodes:
        size, lines = 0 if code.arg is None else code.arg.n, 0
        if size == pickletools.UP_TO_NEWLINE:
            is_pair = code.arg is pickletools.stringnl_noescape_pair
            size, lines = 0, 2 if is_pair else 1
        elif size < 0:
            size, lines = prefixes[size], -1
        table[ord(code.code)] = (code.name, size, lines)
    return table


def _after_lines(data: Data, begin: int, last: int, lines: int) -> int:
    """The byte after so many lines; one after `last` if they do not end before it."""
    for _ in range(lines):
        begin = data.find(b"\n", begin, last) + 1 or last + 1
    return begin
