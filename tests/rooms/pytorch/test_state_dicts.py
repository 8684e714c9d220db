"""State dicts written without PyTorch, loaded by PyTorch."""

import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Array, Graph, Layer, Variable, View, in_memory
from tiesurgeon.rooms.pytorch.containers import PROVENANCE
from tiesurgeon.rooms.pytorch.state_dicts import write_state_dict
from tiesurgeon.rooms.pytorch.tensors import DTYPES

MATRIX = np.arange(33, dtype="f4").reshape(11, 3)


def layer(name: str, *views: View) -> Layer:
    return Layer(name, "", views=views, separator=".")


def weight(array: Array, role: str = "weight") -> View:
    return View(role, Variable(role, in_memory("0", array)))


def written(path: Path, *layers: Layer, mmap: bool = False) -> dict[str, torch.Tensor]:
    write_state_dict(path, Graph("", "", layers), {"source": "m.pt"})
    loaded: dict[str, torch.Tensor] = torch.load(path, weights_only=True, mmap=mmap)
    return loaded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state dict goes."""
    return tmp_path / "m.pt"


@pytest.mark.parametrize("mmap", [False, True])
def test_names_order_and_numbers(path: Path, mmap: bool) -> None:
    linear = layer("net.out", weight(MATRIX), weight(MATRIX[:, 0], "bias"))
    state = written(path, layer("net.embed", weight(-MATRIX)), linear, mmap=mmap)
    assert type(state).__name__ == "OrderedDict"
    assert list(state) == ["net.embed.weight", "net.out.weight", "net.out.bias"]
    assert state["net.embed.weight"].tolist() == (-MATRIX).tolist()
    assert state["net.out.bias"].tolist() == MATRIX[:, 0].tolist()


def test_tensors_of_the_root(path: Path) -> None:
    assert list(written(path, layer("", weight(MATRIX, "table")))) == ["table"]


def test_it_loads_into_the_class(path: Path) -> None:
    state = written(path, layer("0", weight(MATRIX)), layer("1", weight(MATRIX[:, ::-1])))
    model = torch.nn.Sequential(torch.nn.Embedding(11, 3), torch.nn.Linear(3, 11, bias=False))
    assert not any(model.load_state_dict(state, strict=True))
    assert model[1].weight.tolist() == MATRIX[:, ::-1].tolist()


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(path: Path, name: str) -> None:
    numbers = np.arange(15).reshape(5, 3).astype(DTYPES[name])
    found = written(path, layer("a", weight(numbers)), mmap=True)["a.weight"]
    assert found.dtype == getattr(torch, name)
    assert found.contiguous().view(torch.uint8).numpy().tobytes() == numbers.tobytes()


def test_a_tied_name_shares_the_storage(path: Path) -> None:
    tied = weight(MATRIX)
    alias = View("weight", Variable("other", tied.variable.storage))
    state = written(path, layer("a", tied), layer("b", tied), layer("c", alias))
    with torch.no_grad():
        state["a.weight"][5] += 1
    assert state["b.weight"][5].tolist() == state["c.weight"][5].tolist() == [16, 17, 18]
    with zipfile.ZipFile(path) as archive:
        assert sum("/data/" in name for name in archive.namelist()) == 1


@pytest.mark.parametrize("array", [MATRIX, np.arange(9, dtype="f4").reshape(3, 3)])
def test_a_transposed_tie_is_strides(path: Path, array: Array) -> None:
    tied = weight(array)
    turned = View("weight", tied.variable, perm=(1, 0))
    state = written(path, layer("a", tied), layer("b", turned))
    assert state["b.weight"].tolist() == array.T.tolist()
    assert state["b.weight"].data_ptr() == state["a.weight"].data_ptr()


def test_a_reshaped_transpose_has_a_storage_of_its_own(path: Path) -> None:
    tied = weight(MATRIX)
    odd = View("weight", tied.variable, perm=(1, 0), reshape=(11, 3))
    flat = View("weight", tied.variable, reshape=(33,))
    state = written(path, layer("a", tied), layer("b", odd), layer("c", flat))
    assert state["b.weight"].tolist() == MATRIX.T.reshape(11, 3).tolist()
    assert state["c.weight"].tolist() == MATRIX.ravel().tolist()
    assert state["c.weight"].data_ptr() == state["a.weight"].data_ptr()


def test_scalars_and_empty_tensors(path: Path) -> None:
    scalar, empty = np.full((), 2.5, "f4"), np.zeros((0, 3), "f4")
    state = written(path, layer("a", weight(scalar, "scale"), weight(empty, "none")), mmap=True)
    assert state["a.scale"].item() == 2.5
    assert state["a.none"].shape == (0, 3)


def test_provenance_stands_in_the_file(path: Path) -> None:
    written(path, layer("a", weight(MATRIX)))
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read(f"archive/{PROVENANCE}")) == {"source": "m.pt"}


def test_the_protocol_is_the_one_that_pytorch_writes(path: Path) -> None:
    written(path, layer("a", weight(MATRIX)))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("archive/data.pkl")[:2] == pickle.PROTO + b"\2"


def test_a_dtype_that_pytorch_does_not_have(path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match=r"a\.weight: PyTorch has no dtype <U1"):
        written(path, layer("a", weight(np.array(["x"]))))


def test_other_byte_orders_are_turned(path: Path) -> None:
    assert written(path, layer("a", weight(MATRIX.astype(">f4"))))["a.weight"].tolist() == (
        MATRIX.tolist()
    )


STREAM = """
import sys
from pathlib import Path
import numpy as np
from tiesurgeon.graph import Graph, Layer, Storage, Variable, View
from tiesurgeon.rooms.pytorch.state_dicts import write_state_dict

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if "VmHWM" in line).split()[1]) >> 10

source, target = map(Path, sys.argv[1:])
shape = (200, 500_000)
with source.open("wb") as file:
    file.truncate(4 * 200 * 500_000)
load = lambda: np.memmap(source, "f4", "r", 0, shape)
views = [View("weight", Variable("w", Storage("0", shape, np.dtype("f4"), load)))]
before = peak()
write_state_dict(target, Graph("", "", (Layer("a", "", views=tuple(views), separator="."),)), {})
print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_large_storages_are_streamed(tmp_path: Path, root: Path) -> None:
    """400 MB out of a mapped file."""
    command = [sys.executable, "-c", STREAM, str(tmp_path / "a"), str(tmp_path / "b.pt")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50
