"""Which names of a pickle need --trust-code before a framework may open the file."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rooms.pytorch.pickles.files import Call, dumped, equal_autoencoder, saved, tied
from tiesurgeon.rooms.pytorch.containers import open_container
from tiesurgeon.rooms.pytorch.pickles import read_pickled
from tiesurgeon.rooms.pytorch.pickles.machine import decode
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, walk
from tiesurgeon.rooms.pytorch.pickles.transposed import is_transposed_linear
from tiesurgeon.rooms.pytorch.pickles.trust import classes_in


@pytest.mark.parametrize(
    "thing",
    [
        nn.Transformer(8, 2, 1, 1, 8, batch_first=True),
        nn.Sequential(nn.LSTM(3, 5), nn.GELU(), nn.ParameterList([torch.ones(2)])),
        OrderedDict(weight=torch.ones(2), mean=np.float32(3), table=np.ones(2)),
        {"model": nn.Linear(2, 3), "opt": torch.optim.SGD([nn.Parameter(torch.ones(2))])},
    ],
    ids=["transformer", "sequential", "numpy", "optimizer"],
)
def test_pytorchs_own_and_harmless_names_need_none(thing: Any, tmp_path: Path) -> None:
    assert read_pickled(saved(thing, tmp_path / "m.pt")).classes == ()


def test_what_acts_is_named() -> None:
    evil = [Call(os.system, "true"), Call(eval, "1"), Call(torch.load, "x"), Call(getattr, 1, "a")]
    assert classes_in(decode(dumped(evil)).root) == (
        f"{os.name}.system",
        "__builtin__.eval",
        "torch.serialization.load",
        "__builtin__.getattr",
    )


@pytest.mark.parametrize(
    "name",
    [
        ("torch.nn.modules.linear", "os.system"),
        ("torch.nn.modules.linear", "Linear.forward.__globals__.get"),
        ("torch.nn.modules.module", "warnings"),
        ("torch", "load"),
        ("torch.hub", "Load"),
        ("torch.nn.functional", "importlib"),
        ("numpy", "load"),
        ("builtins", "exec"),
        ("torch.nn.modulesx", "Evil"),
    ],
)
def test_names_that_hide_behind_pytorchs_are_named(name: tuple[str, str]) -> None:
    assert classes_in([Global(*name)]) == (".".join(name),)


def test_a_graph_module_runs_code_of_the_file(tmp_path: Path) -> None:
    model = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()))
    found = read_pickled(saved(model, tmp_path / "m.pt"))
    assert "torch.fx.graph_module.reduce_graph_module" in found.classes
    assert [layer.name for layer in found.graph.layers] == ["0", "1"]


@pytest.mark.parametrize("place", ["code", "imports"])
def test_a_transposed_linear_with_more_code_than_ours_runs_code(place: str, tmp_path: Path) -> None:
    tied(saved(equal_autoencoder(), tmp_path / "ae.pt"), "encoder.weight", "decoder.weight", (1, 0))
    root = decode(open_container(tmp_path / "tied.pt").pickle).root
    name = "torch.fx.graph_module.reduce_graph_module"
    assert name not in classes_in(root)
    [record] = [node for node in walk(root) if is_transposed_linear(node)]
    body, imports = record.parts[1]
    if place == "code":
        body["_code"] = body["_code"].replace("    return linear", "    evil()\n    return linear")
    else:
        record.parts[1] = (body, imports + "\nimport evil")
    assert name in classes_in(root)
