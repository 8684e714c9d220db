"""Batch normalization that stays as it is in training, as a frozen Keras layer does."""

from torch import nn


class FrozenBatchNorm1d(nn.BatchNorm1d):
    """Always in eval mode: it uses its running statistics and leaves them alone."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm1d":
        super().train(False)
        return self


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Always in eval mode: it uses its running statistics and leaves them alone."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":
        super().train(False)
        return self


class FrozenBatchNorm3d(nn.BatchNorm3d):
    """Always in eval mode: it uses its running statistics and leaves them alone."""

    def train(self, mode: bool = True) -> "FrozenBatchNorm3d":
        super().train(False)
        return self
