"""Zip archives read so that a deceitful one cannot tell us one thing and PyTorch another.

`zipfile` reads the directory. Where the bytes of a member start is only known from its own local
header, which is read too, and must say the same as the directory.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.containers.zip_end import find_directory
from tiesurgeon.rooms.pytorch.tensors import Extent

LARGEST_READ = 1 << 26  # bytes of a pickle, of code, of JSON: whatever is read as a whole

_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_PATCH = 0x20
_FOLDER = 0x10  # of the attributes; PyTorch reads nothing from such a member, whatever its size
_SIZES_FOLLOW = 0x8
_UTF8 = 0x800
_DRIVE = re.compile(r"[A-Za-z]:")
_MANY = 0xFFFFFFFF  # stands for a number that a 64-bit field holds


@dataclass(frozen=True)
class Member:
    """A member as the directory and its local header agree on it.

    The header stands at `header`; the bytes, `packed` of them, start at `start`; unpacked they
    are `size`. `crc` is 0 where PyTorch was told not to compute it.
    """

    name: str
    header: int
    start: int
    packed: int
    size: int
    crc: int
    method: int

    @property
    def is_compressed(self) -> bool:
        """False if its bytes lie in the file as they are."""
        return self.method != zipfile.ZIP_STORED


class Archive:
    """A zip archive whose members have names, places and sizes that can be believed.

    `root` is the folder that they all lie in, "" if there is none; `members` go by their names
    inside it, in the order of the directory. Raises UnreadableFile.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            directory = find_directory(file)
            file.seek(0)
            with zipfile.ZipFile(file) as archive:
                infos = archive.infolist()
            if len(infos) != directory.count:
                raise UnreadableFile(
                    f"the zip archive has {len(infos)} members and says {directory.count}"
                )
            found = [_member(file, info) for info in infos]
        _refuse_twins(found)
        _refuse_overlaps(found, directory.start)
        self.root = _root(member.name for member in found)
        skipped = len(self.root) + 1 if self.root else 0
        self.members: Mapping[str, Member] = {member.name[skipped:]: member for member in found}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all members inside the root."""
        return tuple(self.members)

    def read(self, name: str, limit: int = LARGEST_READ) -> bytes:
        """A member unpacked; KeyError if there is none, UnreadableFile if it is over the limit."""
        member = self.members[name]
        if max(member.size, member.packed) > limit:
            raise UnreadableFile(
                f"its member {name!r} has {max(member.size, member.packed):,} bytes, more than "
                f"the {limit:,} that such a member is read with"
            )
        with self.path.open("rb") as file:
            file.seek(member.start)
            data = file.read(member.packed)
        if member.is_compressed:
            data = _inflate(data, member)
        if len(data) != member.size or (member.crc and zlib.crc32(data) != member.crc):
            raise UnreadableFile(f"its member {name!r} is damaged (size or checksum)")
        return data

    def extent(self, name: str) -> Extent:
        """Where the numbers of a member lie; UnreadableFile if it is compressed or not there."""
        member = self.members.get(name)
        if member is None:
            raise UnreadableFile(f"its member {name!r} is missing")
        if member.is_compressed:
            raise UnreadableFile(
                f"its member {name!r} is compressed, as PyTorch never writes numbers; "
                "load it with torch.load and save it again"
            )
        return Extent(self.path, member.start, member.size)


def _member(file: BinaryIO, info: zipfile.ZipInfo) -> Member:
    name = info.orig_filename
    _refuse_bad_name(name, info)
    shown = f"its member {name!r}"
    if info.flag_bits & _ENCRYPTED:
        raise UnreadableFile(f"{shown} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableFile(f"{shown} is compressed in a way that PyTorch cannot read")
    if info.flag_bits & _PATCH or (info.external_attr & _FOLDER and not name.endswith("/")):
        raise UnreadableFile(f"{shown} is marked as a patch or a folder, which PyTorch cannot read")
    if name.endswith("/") and info.file_size:
        raise UnreadableFile(f"{shown} is a folder with bytes of its own")
    if info.volume:
        raise UnreadableFile(f"{shown} lies in another volume")
    is_stored = info.compress_type == zipfile.ZIP_STORED
    if is_stored and info.compress_size != info.file_size:
        raise UnreadableFile(
            f"{shown} is stored in {info.compress_size:,} bytes and said to have {info.file_size:,}"
        )
    file.seek(info.header_offset)
    start = info.header_offset + _local_length(file, info, shown)
    return Member(
        name,
        info.header_offset,
        start,
        packed=info.compress_size,
        size=info.file_size,
        crc=info.CRC,
        method=info.compress_type,
    )


def _refuse_bad_name(name: str, info: zipfile.ZipInfo) -> None:
    parts = name.removesuffix("/").split("/")
    if (
        "\0" in name
        or "\\" in name
        or _DRIVE.match(name)
        or not {"", ".", ".."}.isdisjoint(parts)
        or (not name.isascii() and not info.flag_bits & _UTF8)
    ):
        raise UnreadableFile(
            f"a member is named {name[:100]!r}, which is no plain path inside an archive"
        )


def _local_length(file: BinaryIO, info: zipfile.ZipInfo, shown: str) -> int:
    """Length of the local header, which must say what the directory says."""
    expected = info.orig_filename.encode()
    data = file.read(_LOCAL.size + len(expected))
    if len(data) < _LOCAL.size + len(expected) or not data.startswith(b"PK\x03\x04"):
        raise UnreadableFile(f"{shown} has no local header where the directory says")
    _, _, flags, method, _, _, crc, packed, size, name, extra = _LOCAL.unpack(data[: _LOCAL.size])
    sizes: Sequence[int] = (size, packed)
    if _MANY in sizes:
        sizes = _wide_sizes(file.read(extra), sizes)
    told = (crc, *sizes)
    follow = flags & _SIZES_FOLLOW and not any(told)
    if (
        (name, data[_LOCAL.size :]) != (len(expected), expected)
        or method != info.compress_type
        or flags & _ENCRYPTED
        or (not follow and told != (info.CRC, info.file_size, info.compress_size))
    ):
        raise UnreadableFile(f"{shown} has a local header that contradicts the directory")
    return int(_LOCAL.size + name + extra)


def _wide_sizes(extra: bytes, narrow: Sequence[int]) -> Sequence[int]:
    """Both sizes, those that do not fit 32 bits from the 64-bit field (number 1)."""
    while len(extra) >= 4:
        number, length = struct.unpack("<HH", extra[:4])
        if number == 1:
            count = min(length, len(extra) - 4) // 8
            wide = iter(struct.unpack(f"<{count}Q", extra[4 : 4 + 8 * count]))
            return tuple(next(wide, _MANY) if size == _MANY else size for size in narrow)
        extra = extra[4 + length :]
    return narrow


def _refuse_twins(members: Sequence[Member]) -> None:
    """PyTorch looks a member up whatever its case, so no two may have one name that way."""
    seen: dict[bytes, str] = {}
    for member in members:
        # Bytes, because PyTorch folds the case of ASCII letters only.
        other = seen.setdefault(member.name.encode().lower(), member.name)
        if other is not member.name:
            raise UnreadableFile(
                f"two members have one name for PyTorch: {other!r} and {member.name!r}"
            )


def _refuse_overlaps(members: Sequence[Member], directory: int) -> None:
    end, before = 0, ""
    for member in sorted(members, key=lambda member: member.header):
        if member.header < end:
            raise UnreadableFile(f"its members {before!r} and {member.name!r} overlap")
        end, before = member.start + member.packed, member.name
    if end > directory:
        raise UnreadableFile(f"its member {before!r} reaches into what follows: damaged or cut")


def _root(names: Iterable[str]) -> str:
    firsts = {name.split("/")[0] if "/" in name else "" for name in names}
    return firsts.pop() if len(firsts) == 1 else ""


def _inflate(data: bytes, member: Member) -> bytes:
    """At most one byte more than the member should have, whatever the data would unpack to."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
    except zlib.error as error:
        raise UnreadableFile(f"its member {member.name!r} cannot be unpacked ({error})") from None
