"""Protocol buffers read field by field."""

import pytest

from tests.rooms.savedmodel.crafting import field, varint
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.savedmodel import wire


def of(data: bytes) -> wire.Bytes:
    return memoryview(data)


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, (1 << 64) - 1])
def test_numbers(value: int) -> None:
    assert wire.varint(of(b"x" + varint(value) + b"x"), 1) == (value, 1 + len(varint(value)))


def test_negative_numbers() -> None:
    assert wire.signed(wire.number(of(field(3, -7)), 3)) == -7


def test_fields_of_every_kind() -> None:
    data = field(1, 7) + field(2, "text") + b"\x1d\x01\0\0\0" + b"\x21\x02\0\0\0\0\0\0\0"
    found = [(n, bytes(v) if isinstance(v, memoryview) else v) for n, v in wire.fields(of(data))]
    assert found == [(1, 7), (2, b"text"), (3, 1), (4, 2)]


def test_the_last_of_a_field_counts() -> None:
    data = of(field(1, "a") + field(1, "b") + field(2, 3) + field(2, 5))
    assert (wire.text(data, 1), wire.number(data, 2)) == ("b", 5)
    assert (wire.text(data, 8), wire.number(data, 9)) == ("", 0)


def test_maps() -> None:
    data = of(field(4, field(1, "key") + field(2, b"value")))
    assert [(key, bytes(value)) for key, value in wire.pairs(data, 4)] == [("key", b"value")]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff" * 30, "has no end"),
        (b"\x08\x80", "has no end"),
        (b"\x0a\x05abc", "claims 5 bytes"),
        (b"\x0a" + varint(1 << 62), "claims 4,611,686,018,427,387,904 bytes"),
        (b"\x0d\0", "claims 4 bytes"),
        (b"\x0b", "of kind 3"),
    ],
)
def test_what_is_damaged(data: bytes, words: str) -> None:
    with pytest.raises(UnreadableFile, match=words):
        list(wire.fields(of(data)))
