"""TorchScript: scripted and traced modules, read by their code and tied in their pickle."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.rooms.pytorch.pickles.files import (
    equal_autoencoder,
    equal_language_model,
    tied,
    untied,
    views,
)
from tests.rooms.pytorch.pickles.torch_modules import LanguageModel
from tiesurgeon.errors import TieRefused
from tiesurgeon.find import ties
from tiesurgeon.rooms.pytorch.containers import open_container
from tiesurgeon.rooms.pytorch.pickles import read_pickled
from tiesurgeon.rooms.pytorch.pickles.emit import encode
from tiesurgeon.rooms.pytorch.pickles.machine import decode
from tiesurgeon.rooms.pytorch.pickles.numbers import storages_in
from tiesurgeon.rooms.pytorch.pickles.scripted import state_of

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
TOKENS = torch.arange(10).reshape(2, 5)
PAIR = ("embed.weight", "decoder.weight")


def scripted(model: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(model).save(str(path))
    return path


def traced(model: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(model, TOKENS).save(str(path))
    return path


def loaded(path: Path, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path), **options)


@pytest.mark.parametrize("compiled", [scripted, traced])
def test_layers_and_names(compiled: Any, tmp_path: Path) -> None:
    model = LanguageModel(padding_idx=2)
    found = read_pickled(compiled(model, tmp_path / "lm.pt"))
    assert found.format == "torchscript"
    assert found.classes == ()
    assert found.graph.op == "LanguageModel"
    assert [(layer.name, layer.op) for layer in found.graph.layers] == [
        ("embed", "Embedding"),
        ("rnn", "LSTM"),
        ("decoder", "Linear"),
    ]
    assert set(views(found)) == set(model.state_dict())
    assert found.graph.layer("embed").config["padding_idx"] == 2
    assert all(view.variable.trainable for view in views(found).values())


def test_buffers_are_told_by_the_code(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 11), nn.BatchNorm1d(11))
    model[0].weight.requires_grad_(False)
    found = views(read_pickled(scripted(model, tmp_path / "m.pt")))
    assert found["1.running_mean"].variable.kind == "buffer"
    assert found["0.weight"].variable.kind == "weight"
    assert not found["0.weight"].variable.trainable


@pytest.mark.parametrize("compiled", [scripted, traced])
def test_a_tie_is_one_parameter(compiled: Any, tmp_path: Path) -> None:
    model = equal_language_model()
    tied(compiled(model, tmp_path / "lm.pt"), *PAIR)
    extra = {"tiesurgeon.json": ""}
    again = loaded(tmp_path / "tied.pt", _extra_files=extra)
    assert "lm.pt" in str(extra)
    assert [name for name, _ in again.named_parameters()].count("decoder.weight") == 0
    assert again.embed.weight is again.decoder.weight
    assert torch.equal(again(TOKENS), model(TOKENS))
    assert ties(read_pickled(tmp_path / "tied.pt").graph)[0].kind == "tie"


def test_an_untied_one_has_two_again(tmp_path: Path) -> None:
    model = equal_language_model()
    model.decoder.weight = model.embed.weight
    untied(scripted(model, tmp_path / "lm.pt"), "decoder.weight")
    again = loaded(tmp_path / "untied.pt")
    assert len([*again.parameters()]) == 7
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_untying_a_layer_used_twice_copies_it(tmp_path: Path) -> None:
    layer = nn.Linear(5, 5)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    untied(scripted(model, tmp_path / "m.pt"), "2.weight")
    again = loaded(tmp_path / "untied.pt")
    assert len([*again.parameters()]) == 3
    assert torch.equal(again(torch.ones(2, 5)), model(torch.ones(2, 5)))


def test_a_transposed_tie_is_refused_with_a_way_out(tmp_path: Path) -> None:
    found = read_pickled(scripted(equal_autoencoder(), tmp_path / "ae.pt"))
    with pytest.raises(TieRefused, match=r"transposed, which TorchScript's.*\.pt2"):
        found.document.tie("encoder.weight", "decoder.weight", (1, 0))


@pytest.mark.parametrize("compiled", [scripted, traced])
def test_max_norm_is_seen_in_the_code(compiled: Any, tmp_path: Path) -> None:
    found = read_pickled(compiled(equal_language_model(max_norm=1.5), tmp_path / "lm.pt"))
    with pytest.raises(TieRefused, match="has max_norm"):
        found.document.tie(*PAIR, None)


def test_a_frozen_module_says_where_its_weights_are(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(torch.jit.script(equal_autoencoder().eval()))
        frozen.save(str(tmp_path / "f.pt"))
    found = read_pickled(tmp_path / "f.pt")
    assert not views(found)
    assert found.notes == (
        "tensors among the constants of its compiled code, which nothing can tie: 4",
    )


def test_pytorchs_own_reader_takes_an_object_that_is_held_twice(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    container = open_container(scripted(model, tmp_path / "m.pt"))
    root = decode(container.pickle).root
    state = state_of(root)
    state["1"] = state["0"]
    data = encode(root, 2, for_torchscript=True)
    container.write(tmp_path / "again.pt", data, storages_in(root), {}, {})
    again = loaded(tmp_path / "again.pt")
    assert [name for name, _ in again.named_parameters()] == ["0.weight", "0.bias"]
