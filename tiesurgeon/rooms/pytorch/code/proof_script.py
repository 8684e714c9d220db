"""Runs in a process of its own, with PyTorch and without tiesurgeon: the proof of a conversion.

Reads a JSON spec (see `run.py`), prints one JSON document. It must stay one file that
imports nothing from the package: what it proves is that a stranger can load the result.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(spec: dict[str, Any]) -> dict[str, Any]:
    """Loads the folder as the README says people do, runs it, pokes and trains its ties."""
    import numpy as np
    import torch

    sys.path.insert(0, spec["folder"])
    module = importlib.import_module("model").load()
    arrays = np.load(spec["inputs"])
    inputs = [torch.from_numpy(arrays[name]) for name in spec["order"]]
    with torch.no_grad():
        outputs = flatten(module(*inputs))
    np.savez(spec["outputs"], *(y.numpy() for y in outputs))
    checks = [check(module, inputs, group) for group in spec["ties"]]
    return {
        "poke": all(one["poke"] for one in checks) if checks else None,
        "step": all(one["step"] for one in checks) if checks else None,
    }


def flatten(outputs: Any) -> list[Any]:
    """Tensors of nested tuples, lists and dicts; dicts in the order of their keys, as Keras."""
    if isinstance(outputs, dict):
        return [y for key in sorted(outputs) for y in flatten(outputs[key])]
    if isinstance(outputs, (tuple, list)):
        return [y for output in outputs for y in flatten(output)]
    return [outputs]


def check(module: Any, inputs: list[Any], names: list[str]) -> dict[str, bool]:
    """One Parameter under all its names, moved by a poke and by an Adam step together."""
    import torch

    tied = [module.get_parameter(name) for name in names]
    one = all(parameter is tied[0] for parameter in tied)
    listed = sum(1 for parameter in module.parameters() if parameter is tied[0])
    with torch.no_grad():
        tied[0][0] += 1.0
    poked = all(bool(torch.equal(parameter, tied[0])) for parameter in tied)
    with torch.no_grad():
        tied[0][0] -= 1.0
    if not tied[0].requires_grad:
        return {"poke": one and poked, "step": one and listed == 1}
    before = tied[0].detach().clone()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    sum(y.float().square().sum() for y in flatten(module(*inputs))).backward()
    optimizer.step()
    moved = not torch.equal(before, tied[-1])
    return {"poke": one and poked, "step": one and listed == 1 and moved}


if __name__ == "__main__":
    sys.modules["tiesurgeon"] = None  # type: ignore[assignment]
    document = main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print("PROOF" + json.dumps(document))
