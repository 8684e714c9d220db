"""Five Adam steps, and how far two trained models are apart."""

import math
from pathlib import Path
from typing import Any

import torch

from .opening import Opened

STEPS, RATE = 5, 1e-2


class NotTrained(Exception):
    """There is nothing to learn, or no room to do so."""


def train(model: Opened, inputs: Any) -> dict[str, torch.Tensor]:
    """The parameters after five Adam steps on the mean square of all outputs.

    In eval mode, so that no dropout differs. Raises NotTrained, or what PyTorch raises.
    """
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    if not parameters:
        raise NotTrained("the model is frozen")
    _refuse_too_large(parameters)
    half = any(p.dtype in (torch.float16, torch.bfloat16) for p in parameters)
    # Beside a half's square, Adam's own epsilon is zero.
    optimizer = torch.optim.Adam(parameters, RATE, eps=1e-3 if half else 1e-8)
    for _ in range(STEPS):
        optimizer.zero_grad()
        outputs = [y for y in model.call(inputs) if y.is_floating_point() and y.requires_grad]
        if not outputs:
            raise NotTrained("its outputs have no gradient")
        loss = sum(y.float().square().mean() if half else y.square().mean() for y in outputs)
        if not torch.isfinite(loss):
            raise NotTrained("its outputs are not finite")
        loss.backward()
        optimizer.step()
    named = model.module.named_parameters(remove_duplicate=False)
    return {name: parameter.detach() for name, parameter in named}


def _refuse_too_large(parameters: list[torch.Tensor]) -> None:
    """NotTrained if gradients, two moments and a copy to compare with do not fit in memory."""
    needed = 4 * sum(p.numel() * p.element_size() for p in parameters)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux: the system will say
        return
    free = next((int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line), needed)
    if needed > free:
        raise NotTrained(
            f"Adam needs {needed >> 20:,} MB of memory, and {free >> 20:,} MB are free"
        )


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference of parameters of one name; infinite where names or shapes differ."""
    if one.keys() != other.keys():
        return math.inf
    return max((difference(one[name], other[name]) for name in one), default=0.0)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest absolute difference; equal infinities and NaN in the same places are none."""
    if one.shape != other.shape:
        return math.inf
    if one.numel() == 0:
        return 0.0
    if not (one.is_floating_point() or one.is_complex()):
        return 0.0 if torch.equal(one, other) else math.inf
    same = (one == other) | (one.isnan() & other.isnan())
    if bool(same.all()):
        return 0.0
    wide = torch.complex128 if one.is_complex() else torch.float64
    gaps = (one[~same].to(wide) - other[~same].to(wide)).abs()
    found = float(gaps.max())
    return math.inf if math.isnan(found) else found


def widened(model: Opened, inputs: Any) -> Any:
    """Turns the model to float64, so that the order of sums no longer shows; and its inputs."""
    model.module.double()

    def wide(value: Any) -> Any:
        is_floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.double() if is_floating else value

    args, kwargs = inputs
    return tuple(map(wide, args)), {name: wide(value) for name, value in kwargs.items()}
