"""Models that run: what is tied passes, and what only looks tied does not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.rooms.pytorch.stock import files
from tests.rooms.pytorch.stock.own_lm import Halved, Rewritten
from tiesurgeon.errors import ProofFailed
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.pytorch.run import Subject, judge

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*_flat_weights.* were assigned during export:UserWarning"),
]

PASSED = Proof(reread=True, max_abs_diff=0.0, poke=True, step=True)
Save = Callable[[nn.Module, Path], Path]
FORMATS: dict[str, tuple[Save, Save]] = {
    "torch-module": (files.save, files.save),
    "torchscript": (files.script, files.script),
    "torch-export": (files.export, files.export_tied),
}


@pytest.fixture(params=FORMATS)
def judged(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Result]:
    """`judged(written)`: the verdict on that model, saved in each format, against the original."""
    kind = request.param

    def judged(model: Any, **options: Any) -> Result:
        save, save_tied = FORMATS[kind]
        original = save(files.language_model(), tmp_path / "model.file")
        is_tied = not hasattr(model.decoder, "weight") or model.decoder.weight is model.embed.weight
        written = (save_tied if is_tied else save)(model, tmp_path / "tied.file")
        given = {"trust_code": True, **options}
        return judge(Subject(written, kind), Subject(original, kind), [files.TIE], **given)

    return judged


def test_a_tied_model_passes(judged: Callable[..., Result]) -> None:
    result = judged(files.tied(files.language_model()))
    assert result.proof == PASSED
    assert "step        five Adam steps end 0 away from a model tied by hand" in result.lines
    assert result.warnings == ()


def test_an_untied_copy_does_not(judged: Callable[..., Result]) -> None:
    with pytest.raises(ProofFailed, match="are two parameters: it is not tied"):
        judged(files.language_model())


def test_two_parameters_on_one_storage_do_not(judged: Callable[..., Result]) -> None:
    with pytest.raises(ProofFailed, match="are two parameters: it is not tied"):
        judged(files.aliased(files.language_model()))


def test_swapped_rows_do_not(judged: Callable[..., Result]) -> None:
    with pytest.raises(ProofFailed, match="outputs that differ by"):
        judged(files.swapped(files.language_model()))


def test_other_numbers_are_compared_with_a_model_that_has_them(
    judged: Callable[..., Result],
) -> None:
    result = judged(files.swapped(files.language_model()), values_changed=True)
    assert result.proof == PASSED
    assert result.lines[0].startswith("damage      outputs moved by up to ")


def exported(model: type[nn.Module], folder: Path) -> Result:
    original = files.export(files.language_model(), folder / "model.pt2")
    written = files.export(files.language_model(model), folder / "tied.pt2")
    kind = "torch-export"
    return judge(Subject(written, kind), Subject(original, kind), [files.TIE])


def test_a_graph_whose_head_trains_by_half_does_not(tmp_path: Path) -> None:
    """Equal outputs, equal pokes, one parameter: only the steps tell."""
    assert exported(Rewritten, tmp_path).proof == PASSED
    with pytest.raises(ProofFailed, match="after five Adam steps"):
        exported(Halved, tmp_path)


def test_a_program_that_was_tied_before_passes(tmp_path: Path) -> None:
    path = files.export_tied(files.language_model(), tmp_path / "tied.pt2")
    subject = Subject(path, "torch-export")
    assert judge(subject, subject, [files.TIE]).proof == PASSED


def test_names_that_nobody_has_prove_nothing(tmp_path: Path) -> None:
    model = files.sequential()
    result = plain(model, model, [("0.weight", "head.weight", None)], tmp_path)
    assert result.proof == Proof(reread=True)
    assert "the original, once opened, has no head.weight" in result.warnings[0]


class Frozen(Rewritten):
    """Its head holds the numbers as a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("held", files.numbers()["embed.weight"])

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embed(tokens))
        return nn.functional.linear(hidden, self.held, self.decoder.bias)


def test_a_graph_whose_head_keeps_its_own_numbers_does_not(tmp_path: Path) -> None:
    """Equal outputs and one parameter: only a poke tells."""
    with pytest.raises(ProofFailed, match="failed the poke check"):
        exported(Frozen, tmp_path)


def plain(written: nn.Module, original: nn.Module, ties: Any, folder: Path, **options: Any) -> Any:
    """The verdict on files without a class of their own."""
    saved = files.save(written, folder / "tied.pt"), files.save(original, folder / "model.pt")
    one, other = (Subject(path, "torch-module") for path in saved)
    return judge(one, other, ties, **options)


def test_files_of_pytorchs_own_classes_need_no_trust(tmp_path: Path) -> None:
    model = files.sequential()
    model[3].weight = model[0].weight
    result = plain(model, files.sequential(), [("0.weight", "3.weight", None)], tmp_path)
    assert result.proof == PASSED
    assert "inputs      token ids (2, 5) below 11, guessed" in result.lines


def test_a_transposed_tie_passes(tmp_path: Path) -> None:
    model = files.transposed(files.autoencoder())
    result = plain(model, files.autoencoder(), [("0.weight", "2.weight", (1, 0))], tmp_path)
    assert result.proof.max_abs_diff == pytest.approx(0, abs=1e-6)
    assert (result.proof.poke, result.proof.step) == (True, True)
    assert "inputs      random numbers (2, 7), guessed" in result.lines


def test_an_untied_model_is_apart(tmp_path: Path) -> None:
    model = files.sequential()
    model[3].weight = model[0].weight
    pair = [("0.weight", "3.weight")]
    result = plain(files.sequential(), model, [], tmp_path, apart=pair)
    assert result.proof == Proof(reread=True, max_abs_diff=0.0, poke=True)


@pytest.mark.parametrize("again", [files.tied, files.aliased])
def test_one_that_still_shares_is_not(tmp_path: Path, again: Callable[[Any], Any]) -> None:
    model = again(files.language_model())
    with pytest.raises(ProofFailed, match="failed the poke check"):
        plain(model, model, [], tmp_path, apart=[files.TIE[:2]], trust_code=True)


def test_a_class_that_is_not_pytorchs_needs_trust(tmp_path: Path) -> None:
    path = files.save(files.language_model(), tmp_path / "model.pt")
    subject = Subject(path, "torch-module", ("own_lm.LM",))
    result = judge(subject, subject, [files.TIE])
    assert result.proof == Proof(reread=True)
    [word] = result.warnings
    assert word.startswith("opening it needs the class own_lm.LM; give --trust-code")


def test_given_inputs_are_used(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", tokens=np.array([[1, 2, 3]]))
    model = files.tied(files.language_model())
    options = {"trust_code": True, "example_inputs": tmp_path / "inputs.npz"}
    result = plain(model, files.language_model(), [files.TIE], tmp_path, **options)
    assert result.proof == PASSED
    assert "inputs      the example inputs" in result.lines


def test_given_inputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", tokens=np.array([[1, 2, 30]]))
    model = files.tied(files.language_model())
    options = {"trust_code": True, "example_inputs": tmp_path / "inputs.npz"}
    with pytest.raises(ProofFailed, match=r"does not run on .*inputs.npz: IndexError"):
        plain(model, files.language_model(), [files.TIE], tmp_path, **options)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 5), nn.Linear(3, 5)

    def forward(self, x: torch.Tensor, scale: int) -> torch.Tensor:
        return self.two(scale * self.one(x)[:, :3])


def test_a_number_for_torchscript_is_no_tensor(tmp_path: Path) -> None:
    np.savez(tmp_path / "inputs.npz", x=np.ones((2, 3)), scale=2)
    path = files.script(Scaled(), tmp_path / "model.pt")
    subject = Subject(path, "torchscript")
    result = judge(subject, subject, [], example_inputs=tmp_path / "inputs.npz")
    assert result.proof.max_abs_diff == 0.0


class Picky(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 5), nn.Linear(3, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape != (2, 4, 3):
            raise ValueError("four steps, please")
        return self.two(self.one(x)[..., :3])


def test_a_model_that_no_guess_fits_is_poked_but_not_run(tmp_path: Path) -> None:
    model = Picky()
    model.two.weight = model.one.weight
    tie = ("one.weight", "two.weight", None)
    result = plain(model, model, [tie], tmp_path, trust_code=True)
    assert result.proof == Proof(reread=True, poke=True)
    [word] = result.warnings
    assert word.endswith("ValueError: four steps, please; give --example-inputs F.npz")


def test_nor_does_it_pass_where_two_parameters_share_a_storage(tmp_path: Path) -> None:
    model = Picky()
    model.two.weight = nn.Parameter(model.one.weight.data)
    with pytest.raises(ProofFailed, match="are two parameters"):
        plain(model, model, [("one.weight", "two.weight", None)], tmp_path, trust_code=True)


class Remembers(nn.Module):
    """Its outputs depend on how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 5), nn.Linear(3, 5)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.two(self.one(x)[:, :3] * self.calls)


def test_a_model_that_remembers_is_called_as_often_as_the_original(tmp_path: Path) -> None:
    model = Remembers()
    model.two.weight = model.one.weight
    tie = ("one.weight", "two.weight", None)
    assert plain(model, model, [tie], tmp_path, trust_code=True).proof == PASSED


class Draws(Remembers):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(x)[:, :3] * float(np.random.default_rng().random()))


def test_a_model_that_is_never_the_same_is_only_poked(tmp_path: Path) -> None:
    model = Draws()
    model.two.weight = model.one.weight
    tie = ("one.weight", "two.weight", None)
    result = plain(model, model, [tie], tmp_path, trust_code=True)
    assert result.proof == Proof(reread=True, poke=True)
    assert result.warnings == ("outputs were not compared: its outputs differ from call to call",)


class Shaky(nn.Module):
    """Its first bias has no gradient but rounding: the mean goes."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(7, 3), nn.Linear(3, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.two(torch.tanh(self.one(x)))
        return (y - y.mean(0)).sum(0, keepdim=True) + y.detach()
