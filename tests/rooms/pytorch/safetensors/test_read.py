"""What the real libraries write is seen as it is, without them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

from tests.rooms.pytorch.safetensors.files import entry, written
from tiesurgeon.find import ties
from tiesurgeon.graph import View
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.rooms.pytorch.safetensors import read_safetensors

V, H = 11, 3
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.bool),
    *(torch.uint64, torch.uint32, torch.uint16, torch.uint8),
]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, H)
        self.norm = nn.BatchNorm1d(H)
        self.layers = nn.ModuleList([nn.Linear(H, H)])
        self.output = nn.Linear(H, V)
        self.output.weight = self.embed.weight


def views(found: TorchFile) -> dict[str, View]:
    return {
        layer.name_of(view, path): view
        for path, layer in found.graph.walk()
        for view in layer.views
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    numbers = torch.arange(V * H).reshape(V, H).to(dtype)
    save_file({"a.weight": numbers}, tmp_path / "m.safetensors")

    view = views(read_safetensors(tmp_path / "m.safetensors"))["a.weight"]

    assert view.shape == (V, H)
    assert view.variable.storage.dtype.name == str(dtype).removeprefix("torch.")
    bits = numbers.contiguous().view(torch.uint8).numpy()
    np.testing.assert_array_equal(view.load().view(np.uint8), bits)
    is_float = dtype.is_floating_point or dtype.is_complex
    assert view.variable.kind == ("weight" if is_float else "buffer")
    assert view.variable.trainable == is_float


def test_a_recorded_alias_is_a_second_variable_over_its_storage(tmp_path: Path) -> None:
    model = Tied()
    save_model(model, str(tmp_path / "m.safetensors"))
    found = read_safetensors(tmp_path / "m.safetensors")

    held = views(found)
    assert held.keys() == model.state_dict().keys()
    assert held["embed.weight"].variable is not held["output.weight"].variable
    assert held["embed.weight"].variable.storage is held["output.weight"].variable.storage
    assert [(tie.kind, {tie.source, tie.target}) for tie in ties(found.graph)] == [
        ("alias", {"embed.weight", "output.weight"})
    ]
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(held[name].load(), value.numpy(), err_msg=name)


def test_layers_are_the_prefixes_of_names(tmp_path: Path) -> None:
    save_model(Tied(), str(tmp_path / "m.safetensors"))
    found = read_safetensors(tmp_path / "m.safetensors")
    names = {layer.name: {view.role for view in layer.views} for layer in found.graph.layers}
    assert names == {
        "embed": {"weight"},
        "layers.0": {"weight", "bias"},
        "norm": {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
        "output": {"weight", "bias"},
    }
    kinds = {name: view.variable.kind for name, view in views(found).items() if "norm" in name}
    assert {name for name, kind in kinds.items() if kind == "buffer"} == {
        "norm.running_mean",
        "norm.running_var",
        "norm.num_batches_tracked",
    }


def test_metadata_that_names_no_tensor_is_no_alias(tmp_path: Path) -> None:
    one = torch.ones(V, H)
    metadata = {"format": "pt", "lost.weight": "gone.weight", "pt": "pt", "a": "b"}
    save_file({"pt": one, "a": one + 1}, tmp_path / "m.safetensors", metadata)
    assert views(read_safetensors(tmp_path / "m.safetensors")).keys() == {"pt", "a"}


def test_numbers_that_share_bytes_are_shown_as_bytes(tmp_path: Path) -> None:
    header = {"a": entry(0, 3, [2, 3], "F4"), "b": entry(3, 6, [4], "F6_E2M3")}
    found = read_safetensors(written(tmp_path / "m.safetensors", header, b"123456"))
    assert {name: view.load().tobytes() for name, view in views(found).items()} == {
        "a": b"123",
        "b": b"456",
    }
    [note] = found.notes
    assert note == "2 tensors hold F4 and F6_E2M3 numbers and are shown as bytes: a, b"


def test_empty_tensors_and_single_numbers(tmp_path: Path) -> None:
    save_file({"a": torch.ones(0, H), "b": torch.ones(0, H), "c": torch.tensor(5)}, tmp_path / "m")
    found = read_safetensors(tmp_path / "m")
    held = views(found)
    assert held["a"].load().shape == (0, H)
    assert held["c"].load() == 5
    assert not ties(found.graph)
