"""Weights without a model: they load, what is tied is one matrix, and an optimizer fits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.rooms.pytorch.stock import files
from tiesurgeon.errors import ProofFailed
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.pytorch.run import Subject, judge

pytestmark = pytest.mark.usefixtures("here")

SPLIT = ("embed.weight", "decoder.weight")
CLASS = "weights without a model: your class makes the ties, so nothing was run or trained"


@pytest.fixture
def judged(tmp_path: Path) -> Callable[..., Result]:
    """`judged(content)`: the verdict on what `torch.save` makes of it."""

    def judged(content: Any, kind: str = "torch-state-dict", **options: Any) -> Result:
        torch.save(content, tmp_path / "weights.pt")
        subject = Subject(tmp_path / "weights.pt", kind)
        return judge(subject, subject, **{"ties": [files.TIE], **options})

    return judged


@pytest.mark.parametrize("make", [files.tied, files.aliased])
def test_two_names_on_one_storage_pass(
    judged: Callable[..., Result], make: Callable[[Any], Any]
) -> None:
    result = judged(make(files.language_model()).state_dict())
    assert result.proof == Proof(reread=True, poke=True)
    assert result.warnings == (CLASS,)


def test_two_copies_do_not(judged: Callable[..., Result]) -> None:
    with pytest.raises(ProofFailed, match=r"embed\.weight does not show in decoder\.weight"):
        judged(files.language_model().state_dict())


def test_a_transposed_view_passes(judged: Callable[..., Result]) -> None:
    weights = files.autoencoder().state_dict()
    weights["2.weight"] = weights["0.weight"].t()
    assert judged(weights, ties=[("0.weight", "2.weight", (1, 0))]).proof.poke is True


def test_a_transposed_copy_does_not(judged: Callable[..., Result]) -> None:
    with pytest.raises(ProofFailed, match="are two copies"):
        judged(files.autoencoder().state_dict(), ties=[("0.weight", "2.weight", (1, 0))])


def test_weights_that_were_untied_are_apart(judged: Callable[..., Result]) -> None:
    weights = files.language_model().state_dict()
    assert judged(weights, ties=[], apart=[SPLIT]).proof.poke is True
    with pytest.raises(ProofFailed, match="it is not untied"):
        judged(files.tied(files.language_model()).state_dict(), ties=[], apart=[SPLIT])


def checkpoint(optimizer: type[torch.optim.Optimizer], **options: Any) -> dict[str, Any]:
    """A tied model with the state of an optimizer that lists it once, and a copy of old weights."""
    model = files.tied(files.language_model())
    trainer = optimizer(model.parameters(), lr=0.1, **options)
    model(files.TOKENS).sum().backward()
    trainer.step()
    old = files.tied(files.language_model()).state_dict()
    return {"epoch": 3, "model": model.state_dict(), "optimizer": trainer.state_dict(), "ema": old}


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [(torch.optim.Adam, {}), (torch.optim.AdamW, {}), (torch.optim.SGD, {"momentum": 0.9})],
)
def test_an_optimizer_that_fits_passes(
    judged: Callable[..., Result], optimizer: Any, options: Any
) -> None:
    content = checkpoint(optimizer, **options)
    ties = [(f"{part}.embed.weight", f"{part}.decoder.weight", None) for part in ("model", "ema")]
    result = judged(content, "torch-checkpoint", ties=ties)
    assert result.proof == Proof(reread=True, poke=True)
    assert result.warnings == (CLASS,)


def test_names_may_leave_out_where_the_weights_are(judged: Callable[..., Result]) -> None:
    assert judged(checkpoint(torch.optim.Adam), "torch-checkpoint").proof.poke is True


def test_moments_of_other_shapes_do_not_pass(judged: Callable[..., Result]) -> None:
    """What is left if the dropped parameter's state stays and the last one's goes."""
    content = checkpoint(torch.optim.Adam)
    state = content["optimizer"]["state"]
    state[4], state[5] = state[5], state[4]
    with pytest.raises(ProofFailed, match=r"exp_avg 4 is of shape \(11,\)"):
        judged(content, "torch-checkpoint")


def test_an_optimizer_of_other_parameters_is_told(judged: Callable[..., Result]) -> None:
    content = checkpoint(torch.optim.Adam)
    content["optimizer"]["param_groups"][0]["params"] = [0, 1, 2, 3, 4, 5, 6]
    [word, _] = judged(content, "torch-checkpoint").warnings
    assert word.startswith("an optimizer state was not tried: which parameters its 7 are")


def test_a_checkpoint_may_hold_a_whole_module(judged: Callable[..., Result]) -> None:
    model = files.sequential()
    model[3].weight = model[0].weight
    ties = [("net.0.weight", "net.3.weight", None)]
    assert judged({"net": model}, "torch-checkpoint", ties=ties).proof.poke is True


def test_a_class_in_a_checkpoint_needs_trust(judged: Callable[..., Result]) -> None:
    model = files.tied(files.language_model())
    content = {"model": model.state_dict(), "args": model}
    result = judged(content, "torch-checkpoint")
    assert result.proof == Proof(reread=True)
    assert "own_lm.LM, which is not PyTorch's own; give --trust-code" in result.warnings[0]
    assert judged(content, "torch-checkpoint", trust_code=True).proof.poke is True


@pytest.fixture
def judged_safetensors(tmp_path: Path) -> Callable[..., Result]:
    def judged(weights: Any, metadata: Any, ties: Any = (files.TIE,), **options: Any) -> Result:
        save_file(weights, tmp_path / "weights.safetensors", metadata)
        subject = Subject(tmp_path / "weights.safetensors", "safetensors")
        return judge(subject, subject, ties, **options)

    return judged


def without_head() -> dict[str, torch.Tensor]:
    weights = files.language_model().state_dict()
    del weights["decoder.weight"]
    return weights


RECORD = {"decoder.weight": "embed.weight", "format": "pt"}


def test_a_recorded_name_passes(judged_safetensors: Callable[..., Result]) -> None:
    result = judged_safetensors(without_head(), RECORD)
    assert result.proof == Proof(reread=True, poke=True)
    assert result.warnings == (CLASS,)


def test_the_other_name_may_be_the_one_that_was_kept(
    judged_safetensors: Callable[..., Result],
) -> None:
    result = judged_safetensors(without_head(), RECORD, [("decoder.weight", "embed.weight", None)])
    assert result.proof.poke is True


def test_a_second_copy_does_not(judged_safetensors: Callable[..., Result]) -> None:
    with pytest.raises(ProofFailed, match=r"decoder\.weight is still in it"):
        judged_safetensors(files.language_model().state_dict(), RECORD)


def test_a_name_that_is_not_recorded_does_not(judged_safetensors: Callable[..., Result]) -> None:
    with pytest.raises(ProofFailed, match="its metadata does not say"):
        judged_safetensors(without_head(), {"format": "pt"})


def test_names_that_were_untied_are_both_there(judged_safetensors: Callable[..., Result]) -> None:
    weights = files.language_model().state_dict()
    assert judged_safetensors(weights, None, [], apart=[SPLIT]).proof.poke is True
    with pytest.raises(ProofFailed, match="was untied is not in it"):
        judged_safetensors(without_head(), None, [], apart=[SPLIT])
