"""What plain PyTorch says of programs, each against the same model tied by hand.

Run as a script, in a process that has no tiesurgeon: it takes a JSON list of cases and prints
what it found of each.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[4]))  # for `tests`; tiesurgeon is not imported
from tests.rooms.pytorch.exported import models


def trained(model: Any, given: torch.Tensor) -> dict[str, torch.Tensor]:
    """Its parameters after five steps of Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        (model(given) ** 2).mean().backward()
        optimizer.step()
    return dict(model.named_parameters())


def judged(case: dict[str, Any]) -> dict[str, Any]:
    """One case: `written` is the file to judge, `original` the one that it was made of."""
    hand = getattr(models, case["kind"])(**case.get("options", {}))
    state = torch.export.load(case["original"]).state_dict
    own = {name for name, _ in (*hand.named_parameters(), *hand.named_buffers())}  # each once
    hand.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    hand.eval()
    program = torch.export.load(case["written"])
    program.validate()
    given = models.ids() if case["kind"] != "Autoencoder" else torch.randn(2, 7)
    flat = torch.export.unflatten(program)
    module = program.module()
    result = {
        "difference": (module(given) - hand(given)).abs().max().item(),
        "unflattened": (flat(given) - module(given)).abs().max().item(),
        "parameters": sorted(name for name, _ in module.named_parameters()),
        "unflattened_parameters": sorted(name for name, _ in flat.named_parameters()),
    }
    ours, theirs = trained(module, given), trained(hand, given)
    both = ours.keys() & theirs.keys()
    steps = [(ours[name] - theirs[name]).abs().max().item() for name in both]
    return {**result, "steps": max(steps), "compared": len(both)}


def again(case: dict[str, Any]) -> None:
    """Lets PyTorch write the program once more."""
    torch.export.save(torch.export.load(case["written"]), case["again"])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    cases = json.loads(sys.argv[1])
    for case in cases:
        again(case)
    print(json.dumps([judged(case) for case in cases]))
