"""The state of optimizers in checkpoints, when a tie makes one parameter of two."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.rooms.pytorch.pickles.files import equal_language_model, saved, tied, untied
from tests.rooms.pytorch.pickles.torch_modules import LanguageModel
from tiesurgeon.rooms.pytorch.document import TorchFile

PAIR = ("embed.weight", "decoder.weight")
Make = Callable[[Iterable[Any]], torch.optim.Optimizer]


def trained(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """One step, so that every parameter has a state."""
    x = torch.arange(10).reshape(2, 5)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x).flatten(0, 1), x.flatten()).backward()
    optimizer.step()
    model.decoder.weight.data.copy_(model.embed.weight.data)


def by_hand(weights: dict[str, Any]) -> LanguageModel:
    model = LanguageModel()
    model.decoder.weight = model.embed.weight
    model.load_state_dict(weights)
    return model


MAKERS: dict[str, Make] = {
    "adam": lambda parameters: torch.optim.Adam(parameters),
    "momentum": lambda parameters: torch.optim.SGD(parameters, momentum=0.9),
    "plain sgd": lambda parameters: torch.optim.SGD(parameters),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("whole", [False, True], ids=["state dict", "module"])
def test_the_state_of_the_dropped_parameter_goes(name: str, whole: bool, tmp_path: Path) -> None:
    model = equal_language_model()
    optimizer = MAKERS[name](model.parameters())
    trained(model, optimizer)
    kept: Any = model if whole else model.state_dict()
    path = saved({"model": kept, "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    assert not tied(path, *PAIR).document.warnings
    again = torch.load(tmp_path / "tied.pt", weights_only=not whole)
    assert again["optimizer"]["param_groups"][0]["params"] == list(range(6))
    weights = again["model"].state_dict() if whole else again["model"]
    new = by_hand(weights)
    fresh = MAKERS[name](new.parameters())
    fresh.load_state_dict(again["optimizer"])
    names = dict(model.named_parameters())
    for key, parameter in new.named_parameters():
        old, found = optimizer.state[names[key]], fresh.state[parameter]
        assert old.keys() == found.keys()
        for slot, value in old.items():
            assert value is None or torch.equal(value, found[slot])


def test_groups_by_shape_are_certain(tmp_path: Path) -> None:
    model = equal_language_model()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW([{"params": vectors}, {"params": matrices, "weight_decay": 0.0}])
    trained(model, optimizer)
    path = saved({"model": model.state_dict(), "opt": optimizer.state_dict()}, tmp_path / "c.pt")
    tied(path, *PAIR)
    again = torch.load(tmp_path / "tied.pt", weights_only=True)["opt"]
    assert [group["params"] for group in again["param_groups"]] == [[0, 1, 2], [3, 4, 5]]
    embedding = optimizer.state[model.embed.weight]["exp_avg"]
    assert torch.equal(again["state"][3]["exp_avg"], embedding)
    assert again["state"].keys() == set(range(6))


def test_stored_names_are_certain(tmp_path: Path) -> None:
    model = equal_language_model()
    groups = [
        {"params": [(n, p) for n, p in reversed([*model.named_parameters()]) if "bias" not in n]},
        {"params": [(n, p) for n, p in model.named_parameters() if "bias" in n]},
    ]
    optimizer = torch.optim.AdamW(groups)
    trained(model, optimizer)
    path = saved({"model": model.state_dict(), "opt": optimizer.state_dict()}, tmp_path / "c.pt")
    tied(path, *PAIR)
    again = torch.load(tmp_path / "tied.pt", weights_only=True)["opt"]
    assert "decoder.weight" not in again["param_groups"][0]["param_names"]
    assert again["param_groups"][0]["params"] == [0, 1, 2]
    last = again["param_groups"][0]["param_names"].index("embed.weight")
    assert torch.equal(
        again["state"][last]["exp_avg"], optimizer.state[model.embed.weight]["exp_avg"]
    )


def uncertain(found: TorchFile, path: Path, key: str = "optimizer") -> None:
    [warning] = found.document.warnings
    assert warning.startswith(f"{key}: dropped, because it is not certain")
    assert key not in torch.load(path, weights_only=False)


def test_other_parameters_than_the_models_are_uncertain(tmp_path: Path) -> None:
    model = equal_language_model()
    optimizer = torch.optim.Adam([*model.parameters(), nn.Parameter(torch.ones(3))])
    trained(model, optimizer)
    path = saved({"m": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    uncertain(tied(path, *PAIR), tmp_path / "tied.pt")


def test_shapes_that_disagree_are_uncertain(tmp_path: Path) -> None:
    model = equal_language_model()
    optimizer = torch.optim.Adam(reversed([*model.parameters()]))
    trained(model, optimizer)
    path = saved({"m": model, "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    uncertain(tied(path, *PAIR), tmp_path / "tied.pt")


def test_one_shape_in_two_groups_is_uncertain(tmp_path: Path) -> None:
    model = equal_language_model()
    head = [*model.decoder.parameters()]
    rest = [*model.embed.parameters(), *model.rnn.parameters()]
    optimizer = torch.optim.Adam([{"params": head}, {"params": rest}])
    trained(model, optimizer)
    path = saved({"m": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    uncertain(tied(path, *PAIR), tmp_path / "tied.pt")


def test_frozen_parameters_that_the_optimizer_does_not_know(tmp_path: Path) -> None:
    model = equal_language_model()
    model.rnn.requires_grad_(False)
    optimizer = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    trained(model, optimizer)
    path = saved({"m": model, "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    assert not tied(path, *PAIR).document.warnings
    again = torch.load(tmp_path / "tied.pt", weights_only=False)["optimizer"]
    assert again["param_groups"][0]["params"] == [0, 1]
    assert torch.equal(again["state"][1]["exp_avg"], optimizer.state[model.decoder.bias]["exp_avg"])


def test_an_optimizer_that_was_pickled_itself_keeps_its_parameters(tmp_path: Path) -> None:
    model = equal_language_model()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    tied(saved({"model": model, "optimizer": optimizer}, tmp_path / "c.pt"), *PAIR)
    again = torch.load(tmp_path / "tied.pt", weights_only=False)
    assert [*again["model"].parameters()] == again["optimizer"].param_groups[0]["params"]
    assert len(again["optimizer"].state) == 6
    trained(again["model"], again["optimizer"])


def test_averages_do_not_own_the_optimizer(tmp_path: Path) -> None:
    model = equal_language_model()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    parts = {"ema": model.state_dict(), "model": model.state_dict(), "opt": optimizer.state_dict()}
    path = saved(parts, tmp_path / "c.pt")
    found = tied(path, "ema.embed.weight", "ema.decoder.weight")
    assert found.document.code == ("model.decoder.weight = model.embed.weight",)
    again = torch.load(tmp_path / "tied.pt", weights_only=True)
    assert len(again["opt"]["state"]) == 7
    tied(tmp_path / "tied.pt", "model.embed.weight", "model.decoder.weight", to="both.pt")
    again = torch.load(tmp_path / "both.pt", weights_only=True)
    assert len(again["opt"]["state"]) == 6


def test_a_class_that_ties_already_has_nothing_to_drop(tmp_path: Path) -> None:
    model = equal_language_model()
    model.decoder.weight = model.embed.weight
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    path = saved({"m": model.state_dict(), "opt": optimizer.state_dict()}, tmp_path / "c.pt")
    assert not tied(path, *PAIR).document.warnings
    assert len(torch.load(tmp_path / "tied.pt", weights_only=True)["opt"]["state"]) == 6


def test_an_untied_model_has_one_parameter_more_than_its_optimizer(tmp_path: Path) -> None:
    model = equal_language_model()
    model.decoder.weight = model.embed.weight
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    states = {"optimizer_states": [optimizer.state_dict()], "state_dict": model.state_dict()}
    found = untied(saved(states, tmp_path / "c.ckpt"), "decoder.weight")
    [warning] = found.document.warnings
    assert "one parameter more" in warning
    assert torch.load(tmp_path / "untied.pt", weights_only=True)["optimizer_states"] == []


def test_one_group_for_each_matrix_is_uncertain(tmp_path: Path) -> None:
    model = equal_language_model()
    groups = [[model.decoder.weight], [model.embed.weight], [*model.rnn.parameters()]]
    groups += [[model.decoder.bias]]
    optimizer = torch.optim.Adam([{"params": group} for group in groups])
    trained(model, optimizer)
    path = saved({"m": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "c.pt")
    uncertain(tied(path, *PAIR), tmp_path / "tied.pt")
