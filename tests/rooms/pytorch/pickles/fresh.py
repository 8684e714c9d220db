"""Run in a process of its own, where tiesurgeon cannot be imported: loads each tied file, trains it
for five Adam steps beside the same model tied by hand, and prints what it found.

python fresh.py FOLDER; the folder holds what `test_proof.py` wrote.
"""

import copy
import json
import sys
import warnings
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Block:
    """tiesurgeon is not on this machine."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "tiesurgeon":
            raise ImportError(name)


Model = Callable[[torch.Tensor], torch.Tensor]
TOKENS = torch.arange(20).reshape(4, 5) % 11
NUMBERS = torch.arange(28.0).reshape(4, 7) / 7


def tokens_loss(model: Model) -> torch.Tensor:
    return nn.functional.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten())


def numbers_loss(model: Model) -> torch.Tensor:
    return nn.functional.mse_loss(model(NUMBERS), NUMBERS)


def after_five_steps(model: Any, loss: Callable[[Model], torch.Tensor]) -> torch.Tensor:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def judged(model: Any, by_hand: Any, source: str, target: str, loss: Any) -> dict[str, Any]:
    """One parameter, moved by a poke at one end; and the difference from the model tied by hand."""
    one, other = attrgetter(source)(model), attrgetter(target)(model)
    hand = copy.deepcopy(by_hand)
    found: dict[str, Any] = {"same": one is other, "count": len(list(model.parameters()))}
    steps = after_five_steps(model, loss), after_five_steps(hand, loss)
    found["difference"] = float((steps[0] - steps[1]).abs().max())
    with torch.no_grad():
        one[0, 0] = 123.0
    found["poke"] = float(other[0, 0])
    return found


def main(folder: Path) -> None:
    from tests.rooms.pytorch.pickles.torch_modules import LanguageModel, TiedAutoencoder

    language = LanguageModel()
    language.load_state_dict(torch.load(folder / "lm.sd", weights_only=True))
    language.decoder.weight = language.embed.weight
    dense = TiedAutoencoder()
    dense.load_state_dict(torch.load(folder / "ae.sd", weights_only=True), strict=False)
    found = {}
    pair = ("embed.weight", "decoder.weight")
    for name in ("lm", "lm legacy"):
        model = torch.load(folder / f"{name}.tied.pt", weights_only=False)
        found[name] = judged(model, language, *pair, tokens_loss)
    for name in ("ae", "ae legacy"):
        model = torch.load(folder / f"{name}.tied.pt", weights_only=False)
        found[name] = judged(model, dense, "encoder.weight", "decoder.weight", numbers_loss)
    for name in ("sd", "sd legacy"):
        model = LanguageModel()
        model.decoder.weight = model.embed.weight  # the line that the document printed
        model.load_state_dict(torch.load(folder / f"{name}.tied.pt", weights_only=True))
        found[name] = judged(model, language, *pair, tokens_loss)
    scripted = torch.jit.load(str(folder / "ts.tied.pt"))
    found["ts"] = judged(scripted, language, *pair, tokens_loss)
    print(json.dumps(found))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.meta_path.insert(0, Block())
    sys.path.insert(0, str(Path(__file__).parents[4]))
    main(Path(sys.argv[1]))
