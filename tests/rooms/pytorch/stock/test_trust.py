"""What is opened without trust: PyTorch's own classes, and no code of the file's choosing."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.rooms.pytorch.stock import files
from tiesurgeon.rooms.pytorch.run import Subject, judge
from tiesurgeon.rooms.pytorch.stock import harmless
from tiesurgeon.rooms.pytorch.stock.trusted import trust_only_torch
from tiesurgeon.rooms.pytorch.stock.untrusted import Untrusted


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """`load(thing)`: saved, and opened again without trust."""
    monkeypatch.setattr(torch, "load", torch.load)
    trust_only_torch()

    def load(thing: Any, **options: Any) -> Any:
        buffer = io.BytesIO()
        torch.save(thing, buffer, **options)
        buffer.seek(0)
        return torch.load(buffer, weights_only=False)

    return load


class Calls:
    """A pickle that calls what it likes."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> Any:
        return self.function, self.args


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "thing",
    [
        nn.Transformer(6, 2, 1, 1, 5, batch_first=True),
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.GELU(), nn.LSTM(3, 5)),
        OrderedDict(a=torch.ones(2, dtype=torch.bfloat16), b=[torch.float16, {1, 2}]),
        {"activation": [nn.functional.relu, nn.functional.gelu]},
    ],
    ids=["transformer", "sequential", "tensors", "functions"],
)
def test_what_is_pytorchs_own_opens(load: Any, thing: Any, zipped: bool) -> None:
    found = load(thing, _use_new_zipfile_serialization=zipped)
    assert repr(found) == repr(thing)


@pytest.mark.parametrize(
    "function",
    [
        os.system, eval, exec, getattr, __import__, pickle.loads, torch.load, torch.save,
        torch.jit.load, torch.hub.load, torch.utils.data.DataLoader, torch.compile,
    ],
)  # fmt: skip
def test_what_is_not_is_refused(load: Any, function: Any) -> None:
    with pytest.raises(Untrusted):
        load(Calls(function, "0"))


def test_names_with_dots_are_refused(load: Any) -> None:
    hostile = b"\x80\x04\x8c\x13torch.nn.functional\x8c\x0etorch.hub.load\x93."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", hostile)
        archive.writestr("a/version", "3")
    buffer.seek(0)
    with pytest.raises(Untrusted, match=r"torch\.nn\.functional\.torch\.hub\.load"):
        torch.load(buffer, weights_only=False)


def test_the_fx_module_of_a_transposed_tie_opens(load: Any) -> None:
    model = files.transposed(files.autoencoder())
    x = torch.ones(2, 7)
    assert torch.equal(load(model)(x), model(x))


def test_another_fx_module_does_not(load: Any) -> None:

    module = torch.fx.symbolic_trace(nn.ReLU())
    reduced, (body, imports) = module.__reduce__()
    for code in ("\nimport os\n" + body["_code"], body["_code"].replace("relu", "hub.load")):
        with pytest.raises(Untrusted, match="code of an fx GraphModule"):
            load(Calls(reduced, {**body, "_code": code}, imports))
    with pytest.raises(Untrusted, match="code of an fx GraphModule"):
        load(Calls(reduced, body, "import os"))


@pytest.mark.parametrize(
    "target", ["torch.ops.aten.__and__.Tensor", "torch.ops.higher_order.cond", "_operator.getitem"]
)
def test_operators_are_operators(target: str) -> None:
    harmless._refuse_other_document({"target": target})


@pytest.mark.parametrize(
    "text",
    [
        "Mul(Integer(3), Symbol('s77', positive=True, integer=True))",
        "L['x'].size()[1] == 5",
        "2*s0 + 1",
        "PythonMod(s0, 8)",
    ],
)
def test_sizes_are_sizes(text: str) -> None:
    harmless._refuse_other_document({"expr_str": text, "target": "torch.ops.aten.add.Tensor"})


@pytest.mark.parametrize(
    "document",
    [
        {"expr_str": "__import__('os').system('true')"},
        {"guards_code": ["L['x'].__class__"]},
        {"guards_code": ["[x for x in ().__class__.__bases__]"]},
        {"range_constraints": {"exec('1')": {}}},
        {"expr_str": "(" * 500},
        {"target": "torch.os.system"},
        {"target": "torch.ops.load_library"},
        {"target": "torch.ops.aten.add.__class__"},
        {"target": "torch.ops.aten.__import__"},
        {"target": "torch.hub.load"},
        {"target": "_operator.methodcaller"},
    ],
)
def test_code_is_not(document: Any) -> None:
    with pytest.raises(Untrusted):
        harmless._refuse_other_document([{"graph": document}])


def test_a_hostile_file_runs_nothing_in_the_proof(tmp_path: Path) -> None:
    """In a fresh process, as users have it."""
    mark = tmp_path / "ran"
    path = tmp_path / "model.pt"
    torch.save(nn.Sequential(OrderedDict(a=nn.Linear(2, 2), b=Evil(mark))), path)
    subject = Subject(path, "torch-module")  # even if the reader took it for harmless
    result = judge(subject, subject, [("a.weight", "b.weight", None)])
    assert not mark.exists()
    assert result.proof.poke is None
    assert "needs posix.system, which is not PyTorch's own; give --trust-code" in result.warnings[0]


class Evil(nn.Module):
    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)
