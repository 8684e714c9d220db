"""Keras' "same" padding for sizes that are known only at run time."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_same(x: Tensor, window: Sequence[int], stride: Sequence[int], value: float = 0.0) -> Tensor:
    """Pads so that ceil(size / stride) windows fit along each axis, the odd one after."""
    sides: list[int] = []
    for size, reach, step in zip(x.shape[2:], window, stride, strict=True):
        total = torch.sym_max(((size + step - 1) // step - 1) * step + reach - size, 0)
        sides = [total // 2, total - total // 2, *sides]
    return F.pad(x, sides, value=value)


def average_pool_same(x: Tensor, window: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Average pooling over "same" windows, in which padding does not count."""
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(window) - 1]
    inside = torch.ones_like(x[:1, :1])
    total = pool(pad_same(x, window, stride), tuple(window), tuple(stride))
    return total / pool(pad_same(inside, window, stride), tuple(window), tuple(stride))
