"""What a model gives once a tied parameter holds other numbers: what its ONNX file must then give.

Runs beside `export_script.py`, in a process of its own, and imports nothing of the package.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def poke(module: Any, inputs: Sequence[Any], names: Sequence[str], folder: Path) -> dict[str, str]:
    """For each name a file with the new `value`, the inputs, and the outputs before and after.

    The module is left as it was. Names of no Parameter are left out.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    before = outputs(module, inputs)
    written = {}
    for number, name in enumerate(name for name in names if name in parameters):
        parameter = parameters[name]
        saved = parameter.detach().clone()
        with torch.no_grad():
            parameter.mul_(factors(saved))
            after = outputs(module, inputs)
            arrays = {
                "value": parameter.numpy().copy(),
                **numbered("input", [one.numpy() for one in inputs]),
                **numbered("before", before),
                **numbered("after", after),
            }
            parameter.copy_(saved)
        file = folder / f"poke_{number}.npz"
        np.savez(file, **arrays)
        written[name] = str(file)
    return written


def factors(matrix: torch.Tensor) -> torch.Tensor:
    """One for each row, between a half and three halves."""
    seeded = torch.Generator().manual_seed(0)
    by_row = torch.rand(matrix.shape[0], generator=seeded) + 0.5
    return by_row.to(matrix.dtype).reshape(-1, *(1,) * (matrix.ndim - 1))


def outputs(module: Any, inputs: Sequence[Any]) -> list[Any]:
    """The arrays that it gives, in order."""
    with torch.no_grad():
        return [one.numpy().copy() for one in flat(module(*inputs))]


def flat(given: Any) -> Iterator[Any]:
    """Tensors of nested tuples, lists and mappings."""
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, (tuple, list, Mapping)):
        for one in given.values() if isinstance(given, Mapping) else given:
            yield from flat(one)


def numbered(name: str, arrays: Sequence[Any]) -> dict[str, Any]:
    """Arrays under names that keep their order."""
    return {f"{name}_{number}": array for number, array in enumerate(arrays)}
