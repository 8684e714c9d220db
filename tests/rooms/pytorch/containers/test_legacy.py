"""The stream that PyTorch wrote before 1.6: read, written anew, and refused where it lies."""

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat
from tiesurgeon.rooms.pytorch.containers import Container, open_container

MAGIC = 0x1950A86A20F9469CFC6C
NUMBERS = struct.pack("<q3f", 3, 2, 3, 5)


def state() -> dict[str, torch.Tensor]:
    return {"embed": torch.arange(33.0).reshape(11, 3), "ids": torch.arange(7)}


def save(path: Path, protocol: int = 2) -> Path:
    torch.save(state(), path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
    return path


def sizes(path: Path) -> dict[str, int]:
    """Bytes of a number by key: PyTorch's keys are addresses, so only the file knows them."""
    with path.open("rb") as file:
        for _ in range(3):
            pickle.load(file)
        found: dict[str, int] = {}

        class Reader(pickle.Unpickler):
            def find_class(self, module, name):
                return name if name.endswith("Storage") else lambda *_: None

            def persistent_load(self, pid):
                found[pid[2]] = 8 if pid[1] == "LongStorage" else 4

        Reader(file).load()
    return found


def stream(
    *, magic: int = MAGIC, protocol: int = 1001, keys: object = ("a",), data: bytes = NUMBERS
) -> bytes:
    """A stream with one storage, or with what should not be there."""
    parts = (magic, protocol, {"little_endian": True}, None)
    start = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    return start + pickle.dumps(list(keys) if isinstance(keys, tuple) else keys, 2) + data


def opened(path: Path, data: bytes) -> Container:
    path.write_bytes(data)
    container = open_container(path)
    assert container.pickle == pickle.dumps(None, 2)
    assert container.extents({"a": 4})["a"].mapped(np.dtype("<f4")).tolist() == [2, 3, 5]
    return container


def refused(path: Path, data: bytes, words: str | None) -> None:
    with pytest.raises(UnreadableFile, match=words) as caught:
        opened(path, data)
    assert "\n" not in str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the stream stands."""
    return tmp_path / "m.pt"


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_numbers_lie_where_pytorch_put_them(path: Path, protocol: int) -> None:
    container = open_container(save(path, protocol))
    extents = container.extents(sizes(path))
    found = {
        extents[key].mapped(np.dtype(f"<{'i' if s == 8 else 'f'}{s}")).tobytes()
        for key, s in sizes(path).items()
    }
    assert found == {tensor.numpy().tobytes() for tensor in state().values()}


def test_what_it_is(path: Path) -> None:
    container = opened(path, stream())
    assert (container.kind, container.writer, container.names) == ("legacy", "PyTorch", ())
    with pytest.raises(KeyError):
        container.read("version")


@pytest.mark.parametrize("protocol", [2, 4])
def test_written_anew(path: Path, tmp_path: Path, protocol: int) -> None:
    container = open_container(save(path, protocol))
    elements = sizes(path)
    container.extents(elements)
    ids = next(key for key, size in elements.items() if size == 8)
    kept = [key for key in elements if key != ids]
    numbers = np.arange(7, dtype="i8") * 2
    container.write(tmp_path / "new.pt", container.pickle, kept, {ids: numbers}, {"extra/x": b"y"})
    # PyTorch's restricted reader warns of protocols that it was not tested with.
    loaded = torch.load(tmp_path / "new.pt", weights_only=protocol == 2)
    assert loaded["embed"].equal(state()["embed"])
    assert loaded["ids"].tolist() == numbers.tolist()


def test_a_dropped_storage_and_a_new_one(path: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.pt"
    container = opened(path, stream())
    container.write(new, container.pickle, [], {"b": np.ones((2, 2), "f8")}, {})
    written = open_container(new)
    assert written.extents({"b": 8})["b"].mapped(np.dtype("<f8")).tolist() == [1, 1, 1, 1]
    assert new.stat().st_size == len(stream(keys=("b",), data=b"")) + 8 + 32


# --- streams that lie -------------------------------------------------------------------------


def test_things_that_are_no_stream(path: Path) -> None:
    words = "starts neither as a zip archive nor as a stream"
    refused(path, stream(magic=MAGIC + 1), words)
    refused(path, b"hello\n" * 200, words)
    refused(path, pickle.dumps({"a": 1}), words)
    refused(path, stream(protocol=1000), "does not begin as a file of torch.save does")


def test_tar_files(path: Path) -> None:
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    with pytest.raises(UnsupportedFormat, match="tar archive, as PyTorch before 0"):
        open_container(path)


def test_a_stream_that_is_a_tar_file_too(path: Path) -> None:
    """PyTorch tries tar first, so it would read something else than the stream."""
    data = bytearray(stream(keys=("a",), data=NUMBERS).ljust(1024, b"\0"))
    header = tarfile.TarInfo("x").tobuf()
    data[148:512] = header[148:512]
    data[148:156] = b"%06o\0 " % (sum(data[:148]) + sum(data[156:512]) + 8 * 32)
    path.write_bytes(data)
    with pytest.raises(UnsupportedFormat, match="tar archive"):
        open_container(path)


@pytest.mark.parametrize("count", [4, 1 << 40, 1 << 62, (1 << 63) - 1, -1, -(1 << 63)])
def test_counts_that_lie(path: Path, count: int) -> None:
    data = struct.pack("<q", count) + NUMBERS[8:]
    refused(path, stream(data=data), "numbers of 4 bytes, where 12 bytes are left")


def test_bytes_behind_the_last_storage(path: Path) -> None:
    refused(path, stream(data=NUMBERS + b"\0"), "has 1 bytes behind its last storage")
    refused(path, stream(data=NUMBERS * 2), "more than one object")
    few = struct.pack("<q", 2) + NUMBERS[8:]
    refused(path, stream(data=few), "has 4 bytes behind")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ((), "'a' is missing"),
        (("b",), "'a' is missing"),
        (("a", "b"), "has a storage 'b' that its pickle does not name"),
        (("aa", "".join("aa")), "lists a storage twice"),
        (["a", ["b"]], "not a plain list of names"),
        (["a", 1], "not a plain list of names"),
        ({"a": "b"}, "not a plain list of names"),
        (print, "not a plain list of names"),
    ],
)
def test_key_lists_that_lie(path: Path, keys: object, words: str) -> None:
    refused(path, stream(keys=keys), words)


def test_every_cut_is_refused(path: Path) -> None:
    data = stream()
    for length in range(1, len(data)):
        refused(path, data[:length], None)


def test_many_keys(path: Path) -> None:
    """Lists of more than a thousand are written in batches."""
    keys = tuple(map(str, range(2503)))
    path.write_bytes(stream(keys=keys, data=struct.pack("<q", 0) * len(keys)))
    assert len(open_container(path).extents(dict.fromkeys(keys, 4))) == len(keys)
