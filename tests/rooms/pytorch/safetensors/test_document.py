"""Ties made, recorded, undone; bytes that nobody touched stay as they were."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from tiesurgeon.errors import TieRefused
from tiesurgeon.rooms.pytorch.document import Document
from tiesurgeon.rooms.pytorch.safetensors import read_safetensors

V, H = 11, 3


class LanguageModel(nn.Module):
    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, H)
        self.steps = nn.ModuleList([nn.Linear(H, H).half()])
        self.decoder = nn.Linear(H, V)
        if tied:
            self.decoder.weight = self.embed.weight


@pytest.fixture
def untied(tmp_path: Path) -> Path:
    """A file of float32, float16 and bfloat16 numbers, with metadata of its own."""
    tensors = dict(LanguageModel().state_dict())
    tensors["other.weight"] = torch.randn(5, 7).bfloat16()
    save_file(tensors, tmp_path / "untied.safetensors", {"format": "pt", "note": "mine"})
    return tmp_path / "untied.safetensors"


def edited(path: Path, edit: Callable[[Document], object]) -> Path:
    document = read_safetensors(path).document
    edit(document)
    out = path.with_name("out.safetensors")
    document.write(out, {"source": path.name})
    return out


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def test_a_tie_keeps_the_source_and_records_the_target(untied: Path) -> None:
    before = load_file(untied)
    out = edited(untied, lambda d: d.tie("embed.weight", "decoder.weight", None))

    del before["decoder.weight"]
    assert_same(load_file(out), before)
    found = metadata(out)
    assert json.loads(found.pop("tiesurgeon")) == {"source": "untied.safetensors"}
    assert found == {"format": "pt", "note": "mine", "decoder.weight": "embed.weight"}


def test_the_tied_class_loads_it_and_the_untied_one_does_not(untied: Path) -> None:
    def edit(document: Document) -> None:
        document.tie("embed.weight", "decoder.weight", None)

    save_model(LanguageModel(), str(untied))
    out = edited(untied, edit)
    tied = LanguageModel(tied=True)
    assert not any(load_model(tied, str(out)))
    assert torch.equal(tied.decoder.weight, load_file(untied)["embed.weight"])
    with pytest.raises(RuntimeError, match=r"Missing key.*decoder\.weight"):
        load_model(LanguageModel(), str(out))


def test_it_gives_the_line_that_the_class_needs(untied: Path) -> None:
    document = read_safetensors(untied).document
    assert list(document.code) == []
    document.tie("embed.weight", "decoder.weight", None)
    assert list(document.code) == ["model.decoder.weight = model.embed.weight"]
    document.tie("steps.0.weight", "other.weight", None)
    assert document.code[1] == "model.other.weight = model.steps[0].weight"


def test_a_transposed_tie_is_refused_with_a_format_that_can(untied: Path) -> None:
    document = read_safetensors(untied).document
    with pytest.raises(TieRefused, match=r"\.pt state dict.*\.pt2"):
        document.tie("embed.weight", "decoder.weight", (1, 0))
    assert list(document.code) == []


def test_three_names_become_one_and_three_again(tmp_path: Path) -> None:
    tensors = {name: torch.full((V, H), float(n)) for n, name in enumerate("abc")}
    save_file(tensors, tmp_path / "m.safetensors")

    def chain(document: Document) -> None:
        document.tie("b", "c", None)
        document.tie("a", "b", None)

    out = edited(tmp_path / "m.safetensors", chain)
    assert_same(load_file(out), {"a": tensors["a"]})
    assert {k: v for k, v in metadata(out).items() if len(k) == 1} == {"b": "a", "c": "a"}

    def undo(document: Document) -> None:
        document.untie("a")  # the very one that holds the numbers
        document.untie("c")

    again = edited(out.rename(tmp_path / "tied.safetensors"), undo)
    assert_same(load_file(again), dict.fromkeys("abc", tensors["a"]))
    assert not {"a", "b", "c"} & metadata(again).keys()


def test_the_source_holds_the_numbers_even_where_the_file_kept_the_other(tmp_path: Path) -> None:
    save_model(LanguageModel(tied=True), str(tmp_path / "m.safetensors"))
    assert metadata(tmp_path / "m.safetensors")["embed.weight"] == "decoder.weight"

    out = edited(
        tmp_path / "m.safetensors", lambda d: d.tie("embed.weight", "decoder.weight", None)
    )

    assert metadata(out)["decoder.weight"] == "embed.weight"
    assert "decoder.weight" not in load_file(out)
    assert "embed.weight" not in metadata(out)


def test_assigned_numbers_are_seen_under_every_name(untied: Path) -> None:
    value = np.arange(V * H, dtype="f4").reshape(V, H)

    def edit(document: Document) -> None:
        document.tie("embed.weight", "decoder.weight", None)
        document.assign("decoder.weight", value)

    out = edited(untied, edit)
    held = {v.name: v for v in read_safetensors(out).graph.variables()}
    for name in ("embed.weight", "decoder.weight"):
        np.testing.assert_array_equal(held[name].storage.load(), value)


def test_untie_writes_the_copy_again(tmp_path: Path) -> None:
    model = LanguageModel(tied=True)
    save_model(model, str(tmp_path / "m.safetensors"))
    out = edited(tmp_path / "m.safetensors", lambda d: d.untie("embed.weight"))
    assert_same(load_file(out), model.state_dict())
    assert metadata(out).keys() == {"format", "tiesurgeon"}


@pytest.mark.parametrize("call", ["copy_file_range", "none"])
def test_bytes_are_copied_whatever_the_system_offers(
    untied: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    if call == "none":
        monkeypatch.delattr("os.copy_file_range", raising=False)
    else:

        def refuse(*args: object) -> int:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr("os.copy_file_range", refuse, raising=False)
    out = edited(untied, lambda d: d.tie("embed.weight", "decoder.weight", None))
    before = load_file(untied)
    del before["decoder.weight"]
    assert_same(load_file(out), before)


def test_tensors_are_aligned_to_their_width(tmp_path: Path) -> None:
    tensors = {"wide": torch.ones(V, H), "narrow": torch.ones(5, dtype=torch.int8)}
    save_file(tensors, tmp_path / "m.safetensors", {"copy": "wide"})
    out = edited(tmp_path / "m.safetensors", lambda d: d.untie("copy"))
    for variable in read_safetensors(out).graph.variables():
        array = variable.storage.load()
        assert array.ctypes.data % array.dtype.itemsize == 0, variable.name
