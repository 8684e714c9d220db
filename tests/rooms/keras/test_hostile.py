"""Damaged and deceiving files: HDF5 and archives."""

import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.rooms.keras.hostile import FILES, MEGABYTES, archive, attempt, refused

pytestmark = pytest.mark.usefixtures("little_memory")

DAMAGE = """
import random, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.rooms.keras.hostile import attempt, peak
source, folder, seed, tries = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), 150
rng, data = random.Random(seed), source.read_bytes()
path = folder / ("damaged" + source.suffix)
for number in range(tries):
    path.write_bytes(data[: rng.randrange(len(data))])
    assert attempt(path) is None
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 20))):
        near = rng.randrange(min(6000, len(data)))
        place = rng.choice((rng.randrange(len(data)), near, len(data) - 1 - near))
        changed[place] = rng.randrange(256)
    path.write_bytes(changed)
    attempt(path)
print(peak() if sys.platform == "linux" else 0)
"""


@pytest.mark.parametrize("name", FILES)
def test_cut_files_and_wrong_bytes(name: str, samples: Path, root: Path, tmp_path: Path) -> None:
    """In a process of its own, which a crash of the HDF5 library would end."""
    command = [sys.executable, "-c", DAMAGE, str(root), str(samples / name), str(tmp_path), "24"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MEGABYTES


@pytest.mark.parametrize("size", [0, 1, 7, 8, 96, 512, 2048])
@pytest.mark.parametrize("name", FILES)
def test_the_first_bytes_alone(name: str, size: int, samples: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes((samples / name).read_bytes()[:size])
    assert attempt(path) is None


def test_things_that_are_no_model(tmp_path: Path) -> None:
    refused(tmp_path / "none.h5", "there is no such file")
    refused(tmp_path, "a folder")
    (tmp_path / "empty.h5").touch()
    refused(tmp_path / "empty.h5", "is empty")
    (tmp_path / "text.h5").write_text("hello\n" * 1000)
    refused(tmp_path / "text.h5", "cannot be read as a Keras model")
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.writestr("hello", "world")
    refused(tmp_path / "a.keras", r"without config\.json")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["numbers"] = np.zeros(3)
    refused(tmp_path / "b.h5", "not one that Keras wrote")


# --- HDF5 ----------------------------------------------------------------------------------------


@pytest.fixture
def h5(samples: Path, tmp_path: Path) -> Path:
    """A copy of a sample to damage."""
    path = tmp_path / "model.h5"
    path.write_bytes((samples / "char_lm.h5").read_bytes())
    return path


def kernel(file: h5py.File) -> str:
    """Path of a matrix in the sample."""
    found: list[str] = []
    file.visit(lambda name: found.append(name) if name.endswith("kernel") else None)
    return found[0]


def test_links_are_not_followed(h5: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    for link in (h5py.ExternalLink(secret.name, "/x"), h5py.SoftLink("/model_weights")):
        with h5py.File(h5, "r+") as file, h5py.File(secret, "w") as other:
            other["x"] = np.zeros(file[kernel(file)].shape if kernel(file) in file else 1)
            name = kernel(file)
            del file[name]
            file[name] = link
        refused(h5, "is a link, which is not followed")
        h5.write_bytes((Path(__file__).parents[3] / "sample_models/char_lm.h5").read_bytes())


def test_linked_groups_are_not_followed(h5: Path) -> None:
    with h5py.File(h5, "r+") as file:
        name = kernel(file).split("/")[1]
        file.move(f"model_weights/{name}", "elsewhere")
        file[f"model_weights/{name}"] = h5py.SoftLink("/elsewhere")
    refused(h5, "is a link, which is not followed")


def test_numbers_of_other_files_are_not_read(h5: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(1 << 20))
    with h5py.File(h5, "r+") as file:
        name, shape = kernel(file), file[kernel(file)].shape
        del file[name]
        size = 4 * int(np.prod(shape))
        file.create_dataset(name, shape, "f4", external=[(str(secret), 0, size)])
    refused(h5, "points to another file")
    with h5py.File(h5, "r+") as file:
        del file[name]
        layout = h5py.VirtualLayout(shape, "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", shape)
        file.create_virtual_dataset(name, layout)
    refused(h5, "points to another file")


@pytest.mark.parametrize("options", [{}, {"chunks": (1024, 1024)}, {"compression": "gzip"}])
def test_arrays_that_claim_to_be_huge(h5: Path, options: Any) -> None:
    with h5py.File(h5, "r+") as file:
        name = kernel(file)
        del file[name]
        file.create_dataset(name, (1 << 20, 1 << 20), "f4", **options)
    refused(h5, "claims 4,398,046,511,104 bytes")


@pytest.mark.parametrize("dtype", ["S5", "c8", [("a", "f4"), ("b", "f4")], "(3,)f4"])
def test_arrays_that_are_not_numbers(h5: Path, dtype: Any) -> None:
    with h5py.File(h5, "r+") as file:
        name, shape = kernel(file), file[kernel(file)].shape
        del file[name]
        file.create_dataset(name, shape, dtype)
    assert attempt(h5) is None


def test_lists_that_lie(h5: Path) -> None:
    with h5py.File(h5, "r+") as file:
        group = file["model_weights"]
        names = list(group.attrs["layer_names"])
        group.attrs["layer_names"] = [*names, "ghost"]
    refused(h5, "group 'ghost' is missing")
    for lie in (["../.."], [""], ["."], ["/"], [7, 8], np.zeros((2, 2))):
        with h5py.File(h5, "r+") as file:
            file["model_weights"].attrs["layer_names"] = lie
        assert attempt(h5) is None


@pytest.mark.parametrize("value", [np.float32(3), "text", [["a"]], h5py.Empty("f4"), b"\xff\xfe"])
@pytest.mark.parametrize("name", ["layer_names", "keras_version", "model_config", "weight_names"])
def test_attributes_of_any_other_kind(h5: Path, name: str, value: Any) -> None:
    with h5py.File(h5, "r+") as file:
        where = file["model_weights"] if name == "layer_names" else file
        if name == "weight_names":
            where = file[kernel(file).rsplit("/", 2)[0]]
        where.attrs[name] = value
    attempt(h5)


def test_an_attribute_that_refers_elsewhere(h5: Path) -> None:
    with h5py.File(h5, "r+") as file:
        file.attrs["keras_version"] = file["model_weights"].ref
    refused(h5, "neither text nor numbers")


def test_missing_groups_and_weights(h5: Path) -> None:
    with h5py.File(h5, "r+") as file:
        del file[kernel(file)]
    refused(h5, "is missing; the file is damaged")
    with h5py.File(h5, "r+") as file:
        del file["model_weights"][next(iter(file["model_weights"]))]
    assert attempt(h5) is None


def test_a_group_that_holds_itself(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group["0"] = np.zeros(3)
        group["again"] = file["layers"]
    refused(tmp_path / "model.weights.h5", "in a circle")


def test_a_heap_without_an_end(h5: Path, tmp_path: Path, samples: Path) -> None:
    """The HDF5 library itself would search it for ever."""
    path = tmp_path / "old.h5"
    data = bytearray((samples / "keras2_lm.h5").read_bytes())
    at = heap = data.index(b"GCOL\x01")
    at += 16
    while struct.unpack_from("<H", data, at)[0]:
        at += 16 + (struct.unpack_from("<Q", data, at + 8)[0] + 7) // 8 * 8
    assert at < heap + 4096
    struct.pack_into("<Q", data, at + 8, 0)
    path.write_bytes(data)
    refused(path, "a list of names in it is damaged")


def test_a_string_that_claims_to_be_huge(tmp_path: Path, samples: Path) -> None:
    """The HDF5 library itself would take that much memory."""
    path = tmp_path / "old.h5"
    data = bytearray((samples / "keras2_lm.h5").read_bytes())
    at = data.index(b"layer_names\0") + 12 + 4  # padded to eight
    kind, space = struct.unpack_from("<HH", data, data.index(b"layer_names\0") - 4)
    at += -(-kind // 8) * 8 + -(-space // 8) * 8
    assert struct.unpack_from("<I", data, at)[0] < 100
    struct.pack_into("<I", data, at, 3 << 30)
    path.write_bytes(data)
    refused(path, "a list of names in it is damaged")


# --- archives ---


def test_bombs(samples: Path, tmp_path: Path) -> None:
    source, path = samples / "siamese.keras", tmp_path / "bomb.keras"
    refused(archive(path, source, config=b" " * (40 << 20)), "would unpack to")
    refused(archive(path, source, model=b"\0" * (80 << 20)), "would unpack to")
    refused(archive(path, source, metadata=b"[" * 100_000), "nested too deeply|not JSON")


def test_members_that_are_missing_or_no_json(samples: Path, tmp_path: Path) -> None:
    source, path = samples / "siamese.keras", tmp_path / "model.keras"
    refused(archive(path, source, model=b""), r"without model\.weights\.h5")
    refused(archive(path, source, model=b"nothing"), "cannot be read as a Keras model")
    for text in (b"nothing", b"[]", b"7", b'{"a": 1}', b"\xff", b"{" * 5000, b"null"):
        for member in ("config", "metadata"):
            attempt(archive(path, source, **{member: text}))
