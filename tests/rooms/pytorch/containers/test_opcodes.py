"""Pickles walked without being decoded."""

import os
import pickle
import pickletools

import pytest

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.containers import opcodes
from tiesurgeon.rooms.pytorch.containers.opcodes import end_of_pickle, list_of_strings, walk

LIMIT = 1 << 20

THINGS = [
    None,
    [1, -1, 255, 256, 65536, 1 << 40, 1 << 3000, True, 2.5],
    ["text", "é" * 300, b"bytes" * 100, bytearray(b"x")],
    {"a": (1, 2, 3, 4), "b": {1, 2}, "c": frozenset((1,)), 3: ()},
    [os.getcwd, complex(1, 2), print],
    ["x" * 70000] * 3,
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("thing", THINGS)
def test_opcodes_are_those_that_pickletools_finds(thing: object, protocol: int) -> None:
    data = pickle.dumps(thing, protocol)
    found = list(walk(b"xyz" + data + b"tail", 3, LIMIT))
    assert [name for name, _, _ in found] == [code.name for code, _, _ in pickletools.genops(data)]
    assert found[-1][2] == len(data) + 3
    assert end_of_pickle(b"xyz" + data + b"tail", 3, LIMIT) == len(data) + 3


def test_every_opcode_can_be_walked() -> None:
    """One of each kind, with an argument of one letter, line or zero bytes."""
    for code in pickletools.opcodes:
        size = 0 if code.arg is None else code.arg.n
        is_pair = code.arg is pickletools.stringnl_noescape_pair
        argument = b"\n" * (1 + is_pair) if size == -1 else bytes(size if size > 0 else -size * 2)
        data = code.code.encode("latin-1") + argument + b"." * 9
        assert next(iter(walk(data, 0, LIMIT)))[0] == code.name


@pytest.mark.parametrize("opcode", [b"B", b"X", b"T", b"\x8b", b"\x8d", b"\x8e", b"\x96", b"U"])
@pytest.mark.parametrize("length", [b"\xff" * 8, b"\x7f" + b"\xff" * 7])
def test_lengths_that_lie(opcode: bytes, length: bytes) -> None:
    with pytest.raises(UnreadableFile, match="is cut short"):
        end_of_pickle(opcode + length + b".", 0, LIMIT)


def test_bytes_that_are_no_opcode() -> None:
    with pytest.raises(UnreadableFile, match="byte 1 is 0x7f, which is no opcode"):
        end_of_pickle(b"N\x7f.", 0, LIMIT)


def test_pickles_over_the_limit() -> None:
    data = b"N" * 100 + b"."
    assert end_of_pickle(data, 0, 101) == 101
    with pytest.raises(UnreadableFile, match="has more than 100 bytes"):
        end_of_pickle(data, 0, 100)


def test_pickles_of_too_many_opcodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opcodes, "_MOST_OPCODES", 100)
    assert end_of_pickle(b"N" * 99 + b".", 0, LIMIT) == 100
    with pytest.raises(UnreadableFile, match="has over 100 opcodes"):
        end_of_pickle(b"N" * 100 + b".", 0, LIMIT)


def test_lines_that_do_not_end() -> None:
    for data in (b"ca\n" + b"b" * 100, b"ca", b"c", b"V" + b"a" * 100):
        with pytest.raises(UnreadableFile, match="is cut short"):
            end_of_pickle(data, 0, LIMIT)
    with pytest.raises(UnreadableFile, match="has more than 50 bytes"):
        end_of_pickle(b"V" + b"a" * 100 + b"\n.", 0, 50)


def test_frames_that_readers_take_differently() -> None:
    frame = b"\x95" + (9).to_bytes(8, "little")
    with pytest.raises(UnreadableFile, match="ends inside a frame"):
        end_of_pickle(b"\x80\x04" + frame + b"N." + bytes(20), 0, LIMIT)
    with pytest.raises(UnreadableFile, match="begins a frame inside another"):
        end_of_pickle(b"\x80\x04" + frame + b"N" + frame + b"N" * 8 + b".", 0, LIMIT)


@pytest.mark.parametrize("protocol", range(6))
def test_lists_of_strings(protocol: int) -> None:
    for strings in ([], ["a"], ["a", "b"], [str(n) for n in range(3000)]):
        data = pickle.dumps(strings, protocol)
        assert list_of_strings(data, 0, LIMIT) == (strings, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"]U\x01aU\x01ba.",  # the second string is appended to the first one
        b"U\x01a]U\x01ba.",  # the first string is left on the stack
        b"]U\x01aa0.",  # popped again
        b"]U\x01aa]U\x01ba.",  # two lists
        b"](U\x01aU\x01be",  # no end
        b"(U\x01aU\x01bt.",  # a tuple
        b"]q\0h\0a.",  # holds itself
        b"]U\x01a2aa.",  # a string twice
    ],
)
def test_lists_that_are_more_than_that(data: bytes) -> None:
    with pytest.raises(UnreadableFile, match=r"not a plain list of names|is cut short"):
        list_of_strings(data, 0, LIMIT)
