"""Dropout and noise that torch.nn does not have."""

import torch
from torch import Tensor, nn


class SharedDropout(nn.Dropout):
    """Dropout that drops the same numbers all along the axes `shared`."""

    def __init__(self, p: float, shared: tuple[int, ...]) -> None:
        super().__init__(p)
        self.shared = shared

    def forward(self, x: Tensor) -> Tensor:
        shape = [1 if axis in self.shared else size for axis, size in enumerate(x.shape)]
        return x * super().forward(x.new_ones(shape))


class GaussianDropout(nn.Module):
    """Multiplies by noise around 1 in training, as strong as a dropout of rate `p`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        return x * (1 + torch.randn_like(x) * (self.p / (1 - self.p)) ** 0.5)


class GaussianNoise(nn.Module):
    """Adds noise of that standard deviation in training."""

    def __init__(self, stddev: float) -> None:
        super().__init__()
        self.stddev = stddev

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) * self.stddev if self.training else x
