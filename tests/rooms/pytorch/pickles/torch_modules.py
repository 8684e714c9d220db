"""Modules that the tests pickle. Only PyTorch is imported here, as on the machine of whoever loads
them."""

from typing import Any

import torch
from torch import nn


class LanguageModel(nn.Module):
    """An embedding and an output layer of one shape, with an LSTM between them."""

    def __init__(self, vocabulary: int = 11, width: int = 3, **options: Any) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width, **options)
        self.rnn = nn.LSTM(width, width, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.rnn(self.embed(tokens))
        return self.decoder(hidden)


class Autoencoder(nn.Module):
    """Two dense layers that mirror each other."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Linear(7, 3)
        self.decoder = nn.Linear(3, 7, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(torch.tanh(self.encoder(x)))


class TiedAutoencoder(Autoencoder):
    """The same, tied by hand."""

    def __init__(self) -> None:
        super().__init__()
        del self.decoder.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.encoder(x))
        return nn.functional.linear(hidden, self.encoder.weight.t(), self.decoder.bias)
