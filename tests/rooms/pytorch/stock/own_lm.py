"""A class of the user's own, in a module of its own: a pickled model needs it to be opened."""

import torch
from torch import nn

V, H, T = 11, 3, 5


class LM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, H)
        self.lstm = nn.LSTM(H, H, batch_first=True)
        self.decoder = nn.Linear(H, V)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embed(tokens))
        return self.decoder(hidden)


class Rewritten(LM):
    """What a tie leaves of a `.pt2`: one parameter, used twice."""

    def __init__(self) -> None:
        super().__init__()
        del self.decoder.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embed(tokens))
        return nn.functional.linear(hidden, self.embed.weight, self.decoder.bias)


class Halved(Rewritten):
    """A tie that is not the original's: its head sees half of the matrix."""

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.lstm(self.embed(tokens))
        half = 0.5 * (self.embed.weight + self.embed.weight.detach())
        return nn.functional.linear(hidden, half, self.decoder.bias)
