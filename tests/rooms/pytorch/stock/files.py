"""Files to be judged: originals with equal matrices, and what may have been written of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.rooms.pytorch.stock.own_lm import LM, H, Rewritten, T, V

TIE = ("embed.weight", "decoder.weight", None)
TOKENS = torch.arange(2 * T).reshape(2, T)


def language_model(kind: type[nn.Module] = LM) -> Any:
    """Two equal matrices that are two parameters (one, if the kind has one)."""
    torch.manual_seed(1)
    model = kind()
    model.load_state_dict(numbers(), strict=False)
    return model.eval()


def numbers() -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    found = {name: torch.randn(value.shape) for name, value in LM().state_dict().items()}
    found["decoder.weight"] = found["embed.weight"].clone()
    return found


def tied(model: Any) -> Any:
    model.decoder.weight = model.embed.weight
    return model


def aliased(model: Any) -> Any:
    """Two parameters over one storage: it looks tied, and trains apart."""
    model.decoder.weight = nn.Parameter(model.embed.weight.data)
    return model


def swapped(model: Any) -> Any:
    """Tied, but two rows stand in each other's place."""
    tied(model)
    with torch.no_grad():
        model.embed.weight[[0, 1]] = model.embed.weight[[1, 0]]
    return model


def sequential() -> nn.Sequential:
    """A file without a class of its own."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Embedding(V, H), nn.Linear(H, H), nn.ReLU(), nn.Linear(H, V))
    model[3].weight.data.copy_(model[0].weight.data)
    return model.eval()


def autoencoder() -> nn.Sequential:
    """A decoder that is the encoder transposed."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(7, H), nn.Tanh(), nn.Linear(H, 7))
    model[2].weight.data.copy_(model[0].weight.data.t())
    return model.eval()


def transposed(model: nn.Sequential) -> nn.Sequential:
    """Tied by an fx module, as it can be saved without a class."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.bias = model[0].weight, model[2].bias

        def forward(self, input):  # fx cannot save annotations that are text
            return nn.functional.linear(input, self.weight.t(), self.bias)

    model[2] = torch.fx.symbolic_trace(Head())
    return model


def save(model: nn.Module, path: Path) -> Path:
    torch.save(model, path)
    return path


def script(model: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(model), path)
    return path


def export(model: nn.Module, path: Path) -> Path:
    auto = torch.export.Dim.AUTO
    program = torch.export.export(model, (TOKENS,), dynamic_shapes=({0: auto, 1: auto},))
    torch.export.save(program, path)
    return path


def export_tied(model: nn.Module, path: Path) -> Path:
    """The graph of a tied `.pt2`: the head's matrix has gone."""
    kind: Callable[[], Any] = Rewritten if type(model) is LM else type(model)
    rewritten = kind()
    rewritten.load_state_dict(model.state_dict(), strict=False)
    return export(rewritten.eval(), path)


def fresh(model: Any) -> Any:
    return copy.deepcopy(model)
