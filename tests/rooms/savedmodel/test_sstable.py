"""The table of a checkpoint's index."""

import struct

import pytest

from tests.rooms.savedmodel.crafting import block, of_blocks, rows, table, varint
from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.savedmodel.sstable import entries, masked_crc32c

RESTARTS = struct.pack("<II", 0, 1)


def read(data: bytes) -> dict[bytes, bytes]:
    return {key: bytes(value) for key, value in entries(memoryview(data))}


def row(shared: int, key: bytes, value: bytes) -> bytes:
    return varint(shared) + varint(len(key)) + varint(len(value)) + key + value


def test_the_checksum_is_the_known_one() -> None:
    """RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa."""
    crc = 0x8A9136AA
    assert masked_crc32c(memoryview(bytes(32))) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def test_entries_of_several_blocks() -> None:
    data = of_blocks([rows({b"a": b"1", b"b": b""}), rows({b"c": b"3"})])
    assert read(data) == {b"a": b"1", b"b": b"", b"c": b"3"}


def test_keys_share_their_beginnings() -> None:
    data = row(0, b"dense/bias", b"1") + row(6, b"kernel", b"2") + RESTARTS
    assert read(of_blocks([data])) == {b"dense/bias": b"1", b"dense/kernel": b"2"}


@pytest.mark.parametrize("name", ["snappy", "zstd"])
def test_compressed_tables_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=name):
        read(table({b"a": b"1"}, compression=["", "snappy", "zstd"].index(name)))


def test_every_wrong_byte_of_a_block_is_noticed() -> None:
    good = table({b"a": b"1"})
    for place in range(len(block(rows({b"a": b"1"})))):
        bad = bytearray(good)
        bad[place] ^= 0x10
        with pytest.raises((UnreadableFile, UnsupportedFormat)):
            read(bytes(bad))


def test_every_truncation_is_noticed() -> None:
    good = table({b"a": b"1"})
    for length in range(len(good)):
        with pytest.raises(UnreadableFile):
            read(good[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no block"),
        (struct.pack("<I", 1 << 31), "no block"),
        (row(1, b"a", b"") + RESTARTS, "damaged"),
        (varint(0) + varint(99) + varint(0) + b"a" + RESTARTS, "damaged"),
        (varint(0) + varint(1 << 63) + varint(1 << 63) + RESTARTS, "damaged"),
        (row(0, b"b", b"") + row(0, b"a", b"") + RESTARTS, "keys of its index are damaged"),
        (row(0, b"k" * (1 << 17), b"") + RESTARTS, "claims 131,072 bytes"),
    ],
)
def test_blocks_that_lie(content: bytes, words: str) -> None:
    with pytest.raises(UnreadableFile, match=words):
        read(of_blocks([content]))


def test_keys_that_unpack_to_thousands_of_times_the_file() -> None:
    long = row(0, b"k" * 60_000, b"")
    data = long + b"".join(row(59_990, struct.pack(">Q", i), b"") for i in range(2_000))
    with pytest.raises(UnreadableFile, match="keys of its index are damaged"):
        read(of_blocks([data + RESTARTS]))


def test_blocks_that_overlap() -> None:
    content = rows({b"a": b"1" * 100})
    data = block(content)
    handle = varint(0) + varint(len(content))
    index = rows({bytes([number]): handle for number in range(1, 100)})
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index))
    data += block(index) + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    with pytest.raises(UnreadableFile, match="claims more than the file holds"):
        read(data)
