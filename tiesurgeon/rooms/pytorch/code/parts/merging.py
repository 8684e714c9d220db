"""Merging of values of which some steps are masked."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def multiply_masked(values: Sequence[Tensor], masks: Sequence[Tensor | None]) -> Tensor:
    """The product, in which a masked step counts as 1; 0 where every value is masked."""
    outside = [None if mask is None else ~mask.unsqueeze(-1) for mask in masks]
    product = torch.ones((), dtype=values[0].dtype, device=values[0].device)
    nowhere = torch.ones((), dtype=torch.bool, device=values[0].device)
    for x, hidden in zip(values, outside, strict=True):
        product = product * (x if hidden is None else x.masked_fill(hidden, 1))
        nowhere = nowhere & (torch.zeros_like(nowhere) if hidden is None else hidden)
    return product.masked_fill(nowhere, 0)


def extreme_masked(
    function: Callable[[Tensor, Tensor], Tensor],
    values: Sequence[Tensor],
    masks: Sequence[Tensor | None],
) -> Tensor:
    """The largest or smallest numbers, in which masked steps do not count."""
    output, shown = values[0], masks[0]
    for x, mask in zip(values[1:], masks[1:], strict=True):
        if mask is not None:
            x = torch.where(mask.unsqueeze(-1), x, output)
        if shown is not None:
            output = torch.where(shown.unsqueeze(-1), output, x)
        shown = None if mask is None or shown is None else shown | mask
        output = function(output, x)
    return output
