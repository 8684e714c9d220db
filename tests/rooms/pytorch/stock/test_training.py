"""Five Adam steps: what they need, and when their difference is only rounding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.rooms.pytorch.stock import files
from tests.rooms.pytorch.stock.own_lm import H, V
from tiesurgeon.rooms.pytorch.run import Subject, judge
from tiesurgeon.rooms.pytorch.stock import hand_tied, training
from tiesurgeon.rooms.pytorch.stock.opening import Opened, open_model

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
]


def judged(written: nn.Module, original: nn.Module, folder: Path, **options: Any) -> Any:
    """The verdict on two modules of one class that can be imported here."""
    saved = files.save(written, folder / "tied.pt"), files.save(original, folder / "model.pt")
    one, other = (Subject(path, "torch-module") for path in saved)
    tie = ("embed.weight", "decoder.weight", None)
    return judge(one, other, [tie], trust_code=True, **options)


def both(change: Any = lambda model: model) -> tuple[Any, Any]:
    return files.tied(change(files.language_model())), change(files.language_model())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floats_train_too(tmp_path: Path, dtype: torch.dtype) -> None:
    result = judged(*both(lambda model: model.to(dtype)), tmp_path)
    assert (result.proof.max_abs_diff, result.proof.step) == (0.0, True)


def test_a_frozen_model_is_not_trained(tmp_path: Path) -> None:
    result = judged(*both(lambda model: model.requires_grad_(False)), tmp_path)
    assert (result.proof.poke, result.proof.step) == (True, None)
    assert result.warnings == ("no step was taken: the model is frozen",)


def _freeze_the_matrices(model: Any) -> Any:
    model.embed.requires_grad_(False)
    model.decoder.weight.requires_grad_(False)
    return model


def test_a_matrix_that_does_not_learn_proves_nothing(tmp_path: Path) -> None:
    result = judged(*both(_freeze_the_matrices), tmp_path)
    assert result.proof.step is None
    assert result.warnings == ("no step was taken: no gradient reached embed.weight",)


def test_what_does_not_fit_into_memory_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path, **words: "MemAvailable: 1 kB")
    with pytest.raises(training.NotTrained, match="and 0 MB are free"):
        training.train(Opened(nn.Linear(20, 20), ""), ((torch.ones(2, 20),), {}))


class Centred(nn.Module):
    """A tied pair, and a bias whose gradient is zero but for rounding, in two orders of sums."""

    def __init__(self, turned: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.turned = turned
        self.embed, self.decoder = nn.Embedding(V, H), nn.Linear(H, V)
        self.decoder.weight.data.copy_(self.embed.weight.data)
        self.shift = nn.Parameter(torch.randn(H))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden = self.embed(tokens).tanh() + self.shift
        terms = hidden.flip(0) if self.turned else hidden
        return self.decoder(3 * (hidden - terms.mean((0, 1), keepdim=True)))


def test_rounding_that_adam_makes_much_of_is_no_failure(tmp_path: Path) -> None:
    written, original = Centred(turned=True), Centred(turned=False)
    files.tied(written)
    result = judged(written, original, tmp_path)
    assert result.proof.step is True
    assert result.warnings == ("trained in float64, as Adam made much of float32's rounding",)


def test_a_scripted_lstm_sees_a_tie_of_its_own_weights(tmp_path: Path) -> None:
    """It keeps a list of them, which a tie must reach too."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(H, H, batch_first=True))
    opened = open_model(str(files.script(model, tmp_path / "lstm.pt")), "torchscript", False)
    hand_tied.tie(opened, "0.weight_ih_l0", "0.weight_hh_l0", None)
    x = torch.ones(2, 3, H)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0"):
            getattr(model[0], name).zero_()
        opened.tensors()["0.weight_ih_l0"].zero_()
    assert torch.equal(opened.module(x)[0], model(x)[0])


def test_what_the_model_prints_is_no_answer(tmp_path: Path, monkeypatch: Any) -> None:
    """In a fresh process: its own words, PROOF among them, go elsewhere."""
    monkeypatch.undo()
    (tmp_path / "loud.py").write_text(
        "import torch\n"
        "class Loud(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        print('PROOF{}')\n"
        "        return super().forward(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    loud = __import__("loud").Loud
    model = nn.Sequential(loud(H, H), nn.ReLU(), loud(H, H))
    original = files.save(model, tmp_path / "model.pt")
    model[2].weight = model[0].weight
    written = files.save(model, tmp_path / "tied.pt")
    subjects = [Subject(path, "torch-module", ("loud.Loud",)) for path in (written, original)]
    ties = [("0.weight", "2.weight", None)]
    result = judge(subjects[0], subjects[1], ties, trust_code=True, values_changed=True)
    assert (result.proof.poke, result.proof.step) == (True, True)
