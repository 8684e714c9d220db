"""Modules as `.pt2` programs: the same outputs at other sizes, and each tie one parameter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rooms.pytorch.stock import files
from tests.rooms.pytorch.stock.own_lm import H, T, V
from tiesurgeon.errors import MissingFramework, ProofFailed, UnsupportedFormat
from tiesurgeon.model import Permissions
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.pytorch import export
from tiesurgeon.rooms.pytorch.exported import merge
from tiesurgeon.rooms.pytorch.read import read
from tiesurgeon.rooms.pytorch.run import Subject, judge

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.filterwarnings("ignore:.*_flat_weights.* were assigned during export:UserWarning"),
]

Exported = Callable[..., Result]


@pytest.fixture
def exported(tmp_path: Path) -> Exported:
    """`exported(model)`: saved whole, and written as `tmp_path / "model.pt2"`."""

    def exported(model: nn.Module, *, full: bool = True, **permissions: Any) -> Result:
        path = files.save(model, tmp_path / "model.pt")
        allowed = Permissions(**{"trust_code": True, **permissions})
        return export.export(read(path), path, tmp_path / "model.pt2", allowed, {}, full=full)

    return exported


def program(folder: Path) -> Any:
    return torch.export.load(folder / "model.pt2").module()


def test_a_tie_stays_one_parameter(exported: Exported, tmp_path: Path) -> None:
    result = exported(files.tied(files.language_model()))
    assert result.proof == Proof(reread=True, max_abs_diff=0.0, poke=True, step=True)
    shapes = [tuple(p.shape) for p in program(tmp_path).parameters()]
    assert shapes.count((V, H)) == 1
    assert result.warnings == ()


def test_two_equal_parameters_stay_two(exported: Exported, tmp_path: Path) -> None:
    exported(files.language_model())
    shapes = [tuple(p.shape) for p in program(tmp_path).parameters()]
    assert shapes.count((V, H)) == 2


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_programs_take_any_batch_and_length(
    exported: Exported, tmp_path: Path, kind: type[nn.Module]
) -> None:
    """PyTorch by itself would fix the length to that of the example."""
    torch.manual_seed(0)
    model = nn.Sequential(kind(H, 2, 2, batch_first=True, bidirectional=True)).eval()
    result = exported(model)
    assert f"sizes       input (any, any, {H})" in result.lines
    x = torch.randn(7, 11, H)
    for one, other in zip(
        program(tmp_path)(x)[1:], model(x)[1:], strict=True
    ):  # the state, which for an LSTM is a pair
        assert all(map(torch.equal, [*one], [*other]))


def test_a_transposed_tie_stays_one_parameter(exported: Exported, tmp_path: Path) -> None:
    result = exported(files.transposed(files.autoencoder()), trust_code=False)
    assert (result.proof.poke, result.proof.step) == (True, True)
    assert len(list(program(tmp_path).parameters())) == 3
    assert "sizes       input (any, 7)" in result.lines


def test_one_example_row_does_not_fix_the_batch(exported: Exported, tmp_path: Path) -> None:
    np.savez(tmp_path / "one.npz", tokens=np.array([[1, 2, 3]]))
    result = exported(files.language_model(), example_inputs=tmp_path / "one.npz")
    assert "sizes       tokens (any, any)" in result.lines


class Counts(nn.Module):
    """Computes with its batch size in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) * float(int(x.shape[0]))


def test_a_batch_size_that_is_fixed_is_told(exported: Exported) -> None:
    result = exported(Counts())
    assert f"sizes       x (2, {H})" in result.lines
    assert result.warnings == ("the program takes no other batch than that of its example inputs",)


class Loops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.cell = nn.Embedding(V, H), nn.GRUCell(H, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.zeros(x.shape[0], 2)
        for step in range(x.shape[1]):
            hidden = self.cell(self.embed(x[:, step]), hidden)
        return hidden


def test_a_loop_over_steps_fixes_the_length(exported: Exported) -> None:
    result = exported(Loops(), full=False)
    assert f"sizes       x (any, {T})" in result.lines
    assert result.warnings == ("the program takes no other length than that of its example inputs",)


def test_a_program_that_is_right_for_its_example_only_does_not_pass(tmp_path: Path) -> None:
    """The written one doubles, as the original does with a batch of two."""
    original = Counts()
    double = nn.Sequential(nn.Linear(H, H))
    double.load_state_dict(
        {"0.weight": 2 * original.linear.weight, "0.bias": 2 * original.linear.bias}
    )
    paths = files.save(original, tmp_path / "model.pt"), tmp_path / "model.pt2"
    x = torch.ones(2, H)
    free = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(double, (x,), dynamic_shapes=free), paths[1])
    with pytest.raises(ProofFailed, match="with another batch its outputs differ"):
        judge(
            Subject(paths[1], "torch-export"),
            Subject(paths[0], "torch-module"),
            [],
            trust_code=True,
        )


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) if x.sum() > 0 else x


def test_a_branch_on_values_is_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="branches on the values of its inputs"):
        exported(Branches())
    assert not (tmp_path / "model.pt2").exists()


class Asks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(H, H)

    def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
        return self.linear(x) * scale


def test_a_model_without_known_inputs_is_refused(exported: Exported) -> None:
    with pytest.raises(UnsupportedFormat, match=r"give --example-inputs F\.npz"):
        exported(Asks())


def test_a_class_needs_trust(exported: Exported) -> None:
    with pytest.raises(UnsupportedFormat, match=r"runs the class .*LM; give --trust-code"):
        exported(files.language_model(), trust_code=False)


@pytest.mark.parametrize(
    ("save", "word"),
    [
        (lambda model, path: torch.save(model.state_dict(), path), "weights without a module"),
        (files.script, "TorchScript is none any more"),
    ],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_cannot_be_traced_is_refused(save: Any, word: str, tmp_path: Path) -> None:
    save(files.language_model(), tmp_path / "model.pt")
    found = read(tmp_path / "model.pt")
    with pytest.raises(UnsupportedFormat, match=word):
        export.export(
            found, tmp_path / "model.pt", tmp_path / "model.pt2", Permissions(), {}, full=True
        )


def test_without_pytorch_it_says_so(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "is_installed", lambda package: False)
    with pytest.raises(MissingFramework, match="torch is not installed here; pip install torch"):
        exported(files.sequential())


def test_the_proof_sees_a_tie_that_was_lost(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `torch.export.save` writes by itself: two names, which reload as two parameters."""
    monkeypatch.setattr(merge, "merge_aliases", lambda path, output, words: path.rename(output))
    with pytest.raises(ProofFailed, match="tied"):
        exported(files.tied(files.language_model()))


def test_the_length_is_more_than_the_example(exported: Exported, tmp_path: Path) -> None:
    model = files.sequential()
    exported(model, full=False)
    tokens = torch.arange(T + 1).reshape(1, T + 1)
    assert torch.equal(program(tmp_path)(tokens), model(tokens))
