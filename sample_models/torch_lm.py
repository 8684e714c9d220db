"""The class of `torch_lm.pt`: loading a whole pickled module needs it, and only this file."""

from typing import cast

import torch
from torch import nn


class CharLM(nn.Module):
    """Predicts the next character; the embedding and the output matrix are two parameters."""

    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Turn token ids (batch, time) into logits (batch, time, vocabulary)."""
        hidden, _ = self.lstm(self.embed(tokens))
        return cast(torch.Tensor, self.decoder(hidden))
