"""The table that a checkpoint's index is: sorted keys and values in blocks, as LevelDB has them.

Format: tensorflow/core/lib/io/table_format.txt and github.com/google/leveldb, doc/table_format.md.
TensorFlow writes its blocks uncompressed, and a checksum after each.
"""

from __future__ import annotations

from collections.abc import Iterator

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.savedmodel.wire import Bytes, varint

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48  # bytes: two handles, padding, the magic number
_TRAILER = 5  # bytes after a block: its compression, its checksum
# Keys that repeat each other could unpack to thousands of times the file.
_LONGEST_KEY, _MOST_REPEATED = 1 << 16, 100
_COMPRESSIONS = {1: "snappy", 2: "zstd"}
_POLYNOMIAL = 0x82F63B78  # CRC-32C, reversed


def entries(data: Bytes) -> Iterator[tuple[bytes, Bytes]]:
    """Every key with its value, in order. Raises UnreadableFile where the table is damaged."""
    if len(data) < _FOOTER or int.from_bytes(data[-8:], "little") != _MAGIC:
        raise UnreadableFile("not a checkpoint index, or one that was cut short")
    footer = data[-_FOOTER:]
    _, after = _handle(footer, 0)
    index, _ = _handle(footer, after)
    blocks = [_handle(value, 0)[0] for _, value in _entries(_block(data, *index))]
    # Blocks that overlap would let a small file claim any number of entries.
    if sum(size for _, size in blocks) > len(data):
        raise UnreadableFile("its index claims more than the file holds; the file is damaged")
    allowed = _LONGEST_KEY + _MOST_REPEATED * len(data)
    last: bytes | None = None
    for place in blocks:
        for key, value in _entries(_block(data, *place)):
            allowed -= len(key)
            if allowed < 0 or (last is not None and key <= last):
                raise UnreadableFile("the keys of its index are damaged")
            yield key, value
            last = key


def _handle(data: Bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the place after them."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return (offset, size), at


def _block(data: Bytes, offset: int, size: int) -> Bytes:
    end = offset + size
    if end + _TRAILER > len(data):
        raise UnreadableFile("a block of its index lies beyond the end; the file was cut short")
    compression = data[end]
    if compression in _COMPRESSIONS:
        raise UnsupportedFormat(
            f"its index is compressed with {_COMPRESSIONS[compression]}, which is not supported; "
            "load the model in TensorFlow 2 and save it again"
        )
    stored = int.from_bytes(data[end + 1 : end + _TRAILER], "little")
    if stored != masked_crc32c(data[offset : end + 1]):
        raise UnreadableFile("a block of its index fails its checksum; the file is damaged")
    return data[offset:end]


def _entries(block: Bytes) -> Iterator[tuple[bytes, Bytes]]:
    """Keys hold only what differs from the key before; a list of restarts ends the block."""
    restarts = int.from_bytes(block[-4:], "little") if len(block) >= 4 else len(block)
    end = len(block) - 4 * (restarts + 1)
    if end < 0:
        raise UnreadableFile("a block of its index is no block; the file is damaged")
    at, key = 0, b""
    while at < end:
        shared, at = varint(block, at)
        own, at = varint(block, at)
        length, at = varint(block, at)
        if shared > len(key) or own + length > end - at:
            raise UnreadableFile("an entry of its index is damaged")
        if shared + own > _LONGEST_KEY:
            raise UnreadableFile(f"a key of its index claims {shared + own:,} bytes")
        key = key[:shared] + bytes(block[at : at + own])
        yield key, block[at + own : at + own + length]
        at += own + length


def masked_crc32c(data: Bytes) -> int:
    """The checksum of a block, masked as LevelDB stores it (util/crc32c.h)."""
    crc = 0xFFFF_FFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFF_FFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)
    return byte


_TABLE = tuple(map(_remainder, range(256)))
