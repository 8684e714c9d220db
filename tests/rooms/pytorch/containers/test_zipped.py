"""Archives that PyTorch wrote, written anew and loaded by PyTorch."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.rooms.pytorch.containers.building import Entry, archive, members
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.containers import open_container
from tiesurgeon.rooms.pytorch.containers.zip_writer import ArchiveWriter
from tiesurgeon.rooms.pytorch.containers.zips import Archive

VOCABULARY, WIDTH = 11, 3


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "embed": torch.rand(VOCABULARY, WIDTH, generator=generator),
        "decoder": torch.rand(VOCABULARY, WIDTH, generator=generator),
        "bias": torch.rand(VOCABULARY, generator=generator),
    }


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A state dict with storages 0, 1 and 2."""
    torch.save(state(), tmp_path / "m.pt")
    return tmp_path / "m.pt"


def renamed(pickle: bytes, old: int, new: int) -> bytes:
    """The pickle with another storage key, which is a string of one letter in it."""
    was, now = (b"X\x01\0\0\0%d" % key for key in (old, new))
    assert pickle.count(was) == 1
    return pickle.replace(was, now)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


@pytest.mark.parametrize("mmap", [False, True])
def test_nothing_changed(saved: Path, tmp_path: Path, mmap: bool) -> None:
    container = open_container(saved)
    container.write(tmp_path / "new.pt", container.pickle, ["0", "1", "2"], {}, {})
    assert equal(torch.load(tmp_path / "new.pt", weights_only=True, mmap=mmap), state())
    with zipfile.ZipFile(tmp_path / "new.pt") as written:
        assert written.testzip() is None


def test_numbers_lie_where_pytorch_put_them(saved: Path) -> None:
    extents = open_container(saved).extents({"0": 4, "1": 4, "2": 4})
    for extent, tensor in zip(extents.values(), state().values(), strict=True):
        assert extent.mapped(np.dtype("f4")).tolist() == tensor.flatten().tolist()


def test_a_dropped_storage_is_gone(saved: Path, tmp_path: Path) -> None:
    """The first one, which PyTorch would look for if it computed where the others lie."""
    container, path = open_container(saved), tmp_path / "new.pt"
    container.write(path, renamed(container.pickle, 0, 1), ["1", "2"], {}, {})
    assert "data/0" not in open_container(path).names
    for mmap in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mmap)
        assert loaded["embed"].equal(state()["decoder"])
        assert loaded["embed"].data_ptr() == loaded["decoder"].data_ptr()
    assert torch.load(path, weights_only=True, map_location="meta")["bias"].is_meta


def test_replaced_and_new_storages(saved: Path, tmp_path: Path) -> None:
    container, path = open_container(saved), tmp_path / "new.pt"
    numbers = np.arange(33, dtype="f4").reshape(11, 3)
    pickle = renamed(container.pickle, 0, 7)
    container.write(path, pickle, ["0", "1", "2"], {"7": numbers, "1": -numbers}, {})
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert loaded["embed"].numpy().tolist() == numbers.tolist()
    assert loaded["decoder"].numpy().tolist() == (-numbers).tolist()
    assert loaded["bias"].equal(state()["bias"])
    with zipfile.ZipFile(path) as written:
        assert written.testzip() is None


def test_extra_members_are_added_and_replaced(saved: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.pt", tmp_path / "second.pt"
    for source, target, data in ((saved, first, b'{"a": 1}'), (first, second, b'{"a": 2}')):
        container = open_container(source)
        extra = {"extra/tiesurgeon.json": data}
        container.write(target, container.pickle, ["0", "1", "2"], {}, extra)
    assert json.loads(open_container(second).read("extra/tiesurgeon.json")) == {"a": 2}
    assert equal(torch.load(second, weights_only=True), state())


def test_everything_lies_at_multiples_of_64(saved: Path, tmp_path: Path) -> None:
    container = open_container(saved)
    container.write(tmp_path / "new.pt", container.pickle, ["0", "2"], {}, {"extra/odd": b"x"})
    starts = [member.start for member in Archive(tmp_path / "new.pt").members.values()]
    assert len(starts) == 7
    assert {start % 64 for start in starts} == {0}


def test_checksums_that_were_never_computed(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(state(), tmp_path / "m.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    container = open_container(tmp_path / "m.pt")
    container.write(tmp_path / "new.pt", container.pickle, ["0", "1", "2"], {}, {})
    assert equal(torch.load(tmp_path / "new.pt", weights_only=True), state())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript(tmp_path: Path) -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)
            self.steps: list[int] = [1, 2]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) * 2 + self.steps[1]

    model = torch.jit.trace(Model().eval(), torch.ones(2, 3))
    model.save(str(tmp_path / "m.pt"), _extra_files={"labels": b"a b c"})
    container = open_container(tmp_path / "m.pt")
    assert container.writer == "PyTorch (TorchScript)"
    code = next(name for name in container.names if name.endswith(".py"))
    assert b"class" in container.read(code)  # compressed in the file
    keys = [n.removeprefix("data/") for n in container.names if n.startswith("data/")]
    new, extra = tmp_path / "new.pt", {"extra/tiesurgeon.json": b"{}"}
    container.write(new, container.pickle, keys, {}, extra)
    found: dict[str, Any] = {"labels": b"", "tiesurgeon.json": b""}
    loaded = torch.jit.load(str(new), _extra_files=found)
    assert loaded(torch.ones(2, 3)).equal(model(torch.ones(2, 3)))
    assert found == {"labels": b"a b c", "tiesurgeon.json": b"{}"}


def test_a_file_of_the_other_byte_order(tmp_path: Path) -> None:
    """PyTorch swaps such numbers when it loads them, and so it must after they are replaced."""
    path, big = tmp_path / "m.pt", tmp_path / "big.pt"
    torch.save({"a": torch.zeros(3), "b": torch.zeros(3, dtype=torch.bfloat16)}, path)
    container = open_container(path)
    container.write(big, container.pickle, ["0", "1"], {}, {"byteorder": b"big"})
    swapped = open_container(big)
    assert swapped.swapped
    a, b = np.arange(3, dtype="f4"), torch.arange(3, dtype=torch.bfloat16)
    ours = b.view(torch.int16).numpy().view("u2")
    swapped.write(path, swapped.pickle, [], {"0": a, "1": ours}, {})
    loaded = torch.load(path, weights_only=True)
    assert loaded["a"].tolist() == [0, 1, 2]
    assert loaded["b"].equal(b)


def test_sizes_over_32_bits(tmp_path: Path) -> None:
    """Written as a sparse file: 5 GB of zeros, then a storage that must still be found."""
    path = tmp_path / "m.pt"
    with ArchiveWriter(path, "m") as writer:
        for entry in members():
            if entry.name != b"m/data/0":
                writer.add(entry.name.decode().removeprefix("m/"), [entry.data], len(entry.data))
        info = writer._info("data/1")
        info.file_size = info.compress_size = 5 << 30
        writer._start(info)
        writer._file.truncate(writer._file.tell() + info.file_size)
        writer._finish(info)
        writer.add("data/0", [b"12345678"], 8)
    found = Archive(path)
    assert found.extent("data/1").length == 5 << 30
    start = found.extent("data/0").start
    assert start > 5 << 30
    with path.open("rb") as file:
        file.seek(start)
        assert file.read(8) == b"12345678"
    reader = torch._C.PyTorchFileReader(str(path))
    assert reader.get_record("data/0") == b"12345678"
    assert reader.get_record_offset("data/1") == found.extent("data/1").start


def test_members_that_python_packed_are_kept_as_they_are(tmp_path: Path) -> None:
    path, new = tmp_path / "m.pt", tmp_path / "new.pt"
    code = b"class A:\n" * 100
    path.write_bytes(archive([*members(), Entry(b"m/code/a.py", code, method=8)]))
    container = open_container(path)
    container.write(new, container.pickle, ["0"], {}, {})
    assert Archive(new).members["code/a.py"].packed == Archive(path).members["code/a.py"].packed
    assert open_container(new).read("code/a.py") == code


def test_a_source_that_shrinks_meanwhile(saved: Path, tmp_path: Path) -> None:
    container = open_container(saved)
    pickle = container.pickle
    saved.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(UnreadableFile, match="became shorter while it was copied"):
        container.write(tmp_path / "new.pt", pickle, ["0", "1", "2"], {}, {})


def test_the_writer_counts_what_it_was_promised(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="3 bytes where 4"),
        ArchiveWriter(tmp_path / "m.pt", "m") as writer,
    ):
        writer.add("data/0", [b"abc"], 4)


def test_a_stream_saved_to_memory_has_another_root(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(state(), stream)
    (tmp_path / "m.pt").write_bytes(stream.getvalue())
    container = open_container(tmp_path / "m.pt")
    container.write(tmp_path / "new.pt", container.pickle, ["0", "1", "2"], {}, {})
    assert Archive(tmp_path / "new.pt").root == "archive"
    assert equal(torch.load(tmp_path / "new.pt", weights_only=True), state())
