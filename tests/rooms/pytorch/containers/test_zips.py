"""Zip archives that lie, each refused by name."""

import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.rooms.pytorch.containers.building import NUMBERS, Entry, archive, members
from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.pytorch.containers import Container, open_container

STORAGE = 2  # place of `data/0` in members()


def opened(path: Path, data: bytes) -> Container:
    """The container, after everything that reading a model asks of it."""
    path.write_bytes(data)
    container = open_container(path)
    assert container.pickle == b"\x80\x02N."
    assert container.extents({"0": 4})["0"].mapped(np.dtype("<f4")).tolist() == [2, 3, 5]
    return container


def refused(path: Path, data: bytes, words: str) -> None:
    with pytest.raises(UnreadableFile, match=words) as caught:
        opened(path, data)
    assert "\n" not in str(caught.value)


def changed(place: int, **fields: Any) -> list[Entry]:
    """The members with one of them changed."""
    entries = members()
    entries[place] = replace(entries[place], **fields)
    return entries


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the archive stands."""
    return tmp_path / "m.pt"


def test_a_sound_archive(path: Path) -> None:
    container = opened(path, archive(members()))
    assert (container.kind, container.writer, container.swapped) == ("zip", "PyTorch", False)
    assert container.names == ("data.pkl", "byteorder", "data/0", "version")
    assert container.read("version") == b"3\n"


def test_wide_end_records_are_read_as_pytorch_writes_them(path: Path) -> None:
    opened(path, archive(members(), wide={}))
    opened(path, archive(members(), wide={}, end={"start": 0xFFFFFFFF, "size": 0xFFFFFFFF}))


def test_wide_sizes_are_read(path: Path) -> None:
    wide = {
        "size": 0xFFFFFFFF,
        "packed": 0xFFFFFFFF,
        "extra": struct.pack("<2H2Q", 1, 16, len(NUMBERS), len(NUMBERS)),
    }
    opened(path, archive(changed(STORAGE, local=wide, central=wide)))


def test_sizes_may_follow_the_numbers(path: Path) -> None:
    none = {"flags": 0x808, "crc": 0, "size": 0, "packed": 0}
    opened(path, archive(changed(STORAGE, local=none, central={"flags": 0x808})))


def test_a_checksum_of_zero_was_never_computed(path: Path) -> None:
    zero = {"crc": 0}
    opened(path, archive(changed(0, local=zero, central=zero)))
    wrong = {"crc": 7}
    refused(path, archive(changed(0, local=wrong, central=wrong)), "'data.pkl' is damaged")


def test_sizes_that_do_not_follow_must_be_there(path: Path) -> None:
    none = {"crc": 0, "size": 0, "packed": 0}
    refused(path, archive(changed(STORAGE, local=none)), "contradicts the directory")


# --- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"/m/data/1",
        b"m/../data/1",
        b"m/./data/1",
        b"m//data/1",
        b"..",
        b"m\\data\\1",
        b"C:/m/data/1",
        b"m/data/1\0.pkl",
        b"",
    ],
)
def test_paths_that_lead_elsewhere(path: Path, name: bytes) -> None:
    refused(path, archive([*members(), Entry(name, b"x")]), "no plain path inside an archive")


def test_names_that_are_not_utf8(path: Path) -> None:
    both = {"flags": 0}
    odd = Entry("m/data/é".encode(), b"x", local=both, central=both)
    refused(path, archive([*members(), odd]), "no plain path")
    refused(path, archive([*members(), Entry(b"m/data/\xff", b"x")]), "cannot be read as a PyTorch")


@pytest.mark.parametrize("name", [b"m/data/0", b"m/Data/0", b"M/data.pkl"])
def test_two_members_of_one_name(path: Path, name: bytes) -> None:
    """PyTorch looks names up without their case."""
    refused(path, archive([*members(), Entry(name, NUMBERS)]), "two members have one name")


@pytest.mark.parametrize("name", [b"n/data/1", b"data"])
def test_several_roots(path: Path, name: bytes) -> None:
    refused(path, archive([*members(), Entry(name, b"x")]), "do not lie in one folder")


def test_archives_without_a_pickle(path: Path) -> None:
    refused(path, archive(members()[1:]), r"without m/data\.pkl")
    old = [Entry(b"m/model.json", b"{}"), Entry(b"m/tensors/0", b"1234")]
    path.write_bytes(archive(old))
    with pytest.raises(UnsupportedFormat, match=r"TorchScript of PyTorch 1\.0 or 1\.1"):
        open_container(path)


# --- places and sizes -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"size": 8},
        {"packed": 8},
        {"size": 8, "packed": 8},
        {"crc": 1},
        {"name": b"m/data/1"},
        {"name": b"m/data/00"},
        {"method": 8},
        {"flags": 0x801},
    ],
)
def test_local_headers_that_contradict_the_directory(path: Path, said: dict[str, Any]) -> None:
    words = "local header that contradicts the directory"
    refused(path, archive(changed(STORAGE, local=said)), words)


def test_wide_local_sizes_that_contradict_the_directory(path: Path) -> None:
    extra = struct.pack("<2H2Q", 1, 16, len(NUMBERS), 8)
    wide: dict[str, Any] = {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF, "extra": extra}
    refused(path, archive(changed(STORAGE, local=wide)), "contradicts the directory")
    wide["extra"] = extra[:12]
    refused(path, archive(changed(STORAGE, local=wide)), "contradicts the directory")


def test_wide_central_sizes_without_their_field(path: Path) -> None:
    wide: dict[str, Any] = {"size": 0xFFFFFFFF, "packed": 0xFFFFFFFF}
    refused(path, archive(changed(STORAGE, central=wide)), "contradicts the directory")
    wide["extra"] = struct.pack("<2H", 1, 0)
    refused(path, archive(changed(STORAGE, central=wide)), "cannot be read as a PyTorch file")


@pytest.mark.parametrize("offset", [1, 0x7FFFFFFF, 0xFFFFFFFE])
def test_members_that_are_not_where_the_directory_says(path: Path, offset: int) -> None:
    refused(path, archive(changed(STORAGE, central={"offset": offset})), "no local header")


@pytest.mark.parametrize("method", [1, 12, 14, 93, 99])
def test_other_compressions(path: Path, method: int) -> None:
    both = {"method": method}
    words = "compressed in a way that PyTorch cannot read"
    refused(path, archive(changed(STORAGE, local=both, central=both)), words)


def test_compressed_numbers(path: Path) -> None:
    refused(path, archive(changed(STORAGE, method=8)), "'data/0' is compressed")


def test_a_compressed_pickle_is_unpacked(path: Path) -> None:
    opened(path, archive(changed(0, method=8)))


@pytest.mark.parametrize("size", [3, 5, 1 << 25])
def test_a_pickle_that_unpacks_to_another_size(path: Path, size: int) -> None:
    said = {"size": size}
    entries = changed(0, method=8, local=said, central=said)
    refused(path, archive(entries), "'data.pkl' is damaged")


def test_a_pickle_that_is_too_large(path: Path) -> None:
    said = {"size": 1 << 27}
    refused(path, archive(changed(0, method=8, local=said, central=said)), "134,217,728 bytes")


@pytest.mark.parametrize("flag", [0x1, 0x40, 0x2000])
def test_encrypted_members(path: Path, flag: int) -> None:
    both = {"flags": 0x800 | flag}
    entries = changed(STORAGE, local=both, central=both)
    refused(path, archive(entries), "'m/data/0' is encrypted")


def test_members_that_pytorch_reads_nothing_from(path: Path) -> None:
    words = "marked as a patch or a folder"
    refused(path, archive(changed(STORAGE, central={"attributes": 0x10})), words)
    refused(path, archive(changed(STORAGE, central={"flags": 0x820})), words)
    folder = Entry(b"m/data/", b"x")
    refused(path, archive([*members(), folder]), "a folder with bytes of its own")


def test_folders_as_other_programs_write_them(path: Path) -> None:
    folder = Entry(b"m/data/", b"", central={"attributes": 0x10})
    opened(path, archive([*members(), folder]))


def test_stored_bytes_of_two_sizes(path: Path) -> None:
    both = {"size": 16}
    refused(path, archive(changed(STORAGE, local=both, central=both)), "is stored in 12 bytes")


def test_members_on_another_volume(path: Path) -> None:
    refused(path, archive(changed(STORAGE, central={"volume": 1})), "another volume")


def test_two_members_over_the_same_bytes(path: Path) -> None:
    """A header inside the bytes of another member: readers of one see what the other hides."""
    inner = archive([Entry(b"m/data/1", NUMBERS)])[: 30 + 8 + len(NUMBERS)]
    entries = [*members(), Entry(b"m/data/2", inner), Entry(b"m/data/1", b"")]
    data = archive(entries)
    said = {
        "offset": data.index(b"m/data/1") - 30,
        "size": len(NUMBERS),
        "packed": len(NUMBERS),
        "crc": zlib.crc32(NUMBERS),
    }
    entries[-1] = replace(entries[-1], central=said)
    refused(path, archive(entries), "'m/data/2' and 'm/data/1' overlap")


def test_a_member_that_reaches_into_the_directory(path: Path) -> None:
    both = {"size": 20, "packed": 20}
    refused(path, archive(changed(3, local=both, central=both)), "reaches into what follows")


# --- the directory and its end ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "words"),
    [
        ({"comment": b"hello"}, "does not end as a zip archive does"),
        ({"length": 5}, "does not end as a zip archive does"),
        ({"disk": 1}, "one of several volumes"),
        ({"here": 1}, "one of several volumes"),
        ({"count": 3}, "has 4 members and says 3"),
        ({"count": 5}, "for 5 members"),
        ({"start": 0}, "the directory of the zip archive should end at"),
        ({"size": 10}, "the directory of the zip archive should end at"),
        ({"start": 0xFFFFFFFF}, "the directory of the zip archive should end at"),
    ],
)
def test_end_records_that_lie(path: Path, end: dict[str, Any], words: str) -> None:
    refused(path, archive(members(), end=end), words)


@pytest.mark.parametrize(
    "wide",
    [
        {"start": 1},
        {"size": 1 << 62},
        {"count": 3},
        {"count": 1 << 40},
        {"place": 0},
        {"place": 1 << 63},
        {"here": 1},
        {"disks": 2},
    ],
)
@pytest.mark.parametrize("narrow", [{}, {"start": 0xFFFFFFFF, "size": 0xFFFFFFFF, "count": 0xFFFF}])
def test_wide_end_records_that_lie(
    path: Path, wide: dict[str, Any], narrow: dict[str, int]
) -> None:
    words = "64-bit end record|directory of the zip archive|members and says"
    refused(path, archive(members(), wide=wide, end=narrow), words)


@pytest.mark.parametrize("narrow", [{"start": 1}, {"size": 1}, {"count": 3, "here": 3}])
def test_narrow_end_records_that_contradict_the_wide_ones(
    path: Path, narrow: dict[str, int]
) -> None:
    refused(path, archive(members(), wide={}, end=narrow), "64-bit end record")


def test_bytes_in_front_or_behind(path: Path) -> None:
    data = archive(members())
    refused(path, data + b"\0", "something stands behind it")
    refused(path, b"PK\3\4" + bytes(60) + data, "should end at")
    refused(path, archive(members(), front=bytes(64)), "starts neither as a zip archive nor")


def test_a_large_directory_is_not_read(path: Path) -> None:
    data = archive(members())
    refused(path, data[:-22] + bytes(1 << 24) + data[-22:], "should end at")
    start = data.index(b"PK\1\2")
    size = len(data) - 22 - start + (1 << 24)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 4, 4, size, start, 0)
    refused(path, data[:-22] + bytes(1 << 24) + end, "16,777,")


@pytest.mark.parametrize("order", [b"middle", b"", b"little\n"])
def test_byte_orders_that_are_none(path: Path, order: bytes) -> None:
    refused(path, archive(changed(1, data=order)), "not little or big")


def test_a_missing_storage(path: Path) -> None:
    container = opened(path, archive(members()))
    with pytest.raises(UnreadableFile, match=re.escape("'data/../0' is missing")):
        container.extents({"../0": 4})


def test_every_cut_is_refused(path: Path) -> None:
    data = archive(members(), wide={})
    for length in range(1, len(data)):
        refused(path, data[:length], "m.pt: ")
