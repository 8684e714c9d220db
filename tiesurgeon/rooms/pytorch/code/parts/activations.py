"""Activation functions that torch does not have."""

import torch
from torch import Tensor


def keras2_hard_sigmoid(x: Tensor) -> Tensor:
    """Keras 2's hard sigmoid; torch's is x / 6 + 0.5 between 0 and 1."""
    return (0.2 * x + 0.5).clamp(0, 1)


def squareplus(x: Tensor) -> Tensor:
    """A smooth relu: (x + sqrt(x^2 + 4)) / 2."""
    return (x + (x.square() + 4).sqrt()) / 2


def sparse_plus(x: Tensor) -> Tensor:
    """A relu rounded off between -1 and 1: (x + 1)^2 / 4."""
    return torch.where(x < 1, (x.clamp(min=-1) + 1).square() / 4, x)


def sparse_sigmoid(x: Tensor) -> Tensor:
    """(x + 1) / 2 between 0 and 1."""
    return ((x + 1) / 2).clamp(0, 1)


def sparsemax(x: Tensor, dim: int = -1) -> Tensor:
    """Keras 3.15's sparsemax: of the cumulative sums over the support it takes all together
    where Martins and Astudillo (2016) take the last one."""
    x = x.movedim(dim, -1)
    ordered = x.sort(dim=-1, descending=True).values
    sums = ordered.cumsum(-1)
    count = torch.arange(1, x.shape[-1] + 1, device=x.device, dtype=x.dtype)
    support = ordered - (sums - 1) / count > 0
    total = torch.where(support, sums, 0).sum(-1, keepdim=True)
    threshold = (total - 1) / support.sum(-1, keepdim=True)
    return (x - threshold).clamp(min=0).movedim(-1, dim)


def thresholded_relu(
    x: Tensor, threshold: float, negative_slope: float = 0.0, max_value: float | None = None
) -> Tensor:
    """x from the threshold on, at most max_value; negative_slope * (x - threshold) below."""
    above = x if max_value is None else x.clamp(max=max_value)
    return torch.where(x >= threshold, above, negative_slope * (x - threshold))
