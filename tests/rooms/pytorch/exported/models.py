"""Small models to export, and the same tied by hand. Needs nothing but PyTorch."""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

VOCABULARY, WIDTH = 11, 3


class Lm(nn.Module):
    """Embedding, LSTM, Linear with bias."""

    def __init__(self, *, tied: bool = False, padding: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH, padding_idx=padding)
        self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)
        self.decoder = nn.Linear(WIDTH, VOCABULARY)
        if tied:
            self.decoder.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.decoder(self.lstm(self.embed(ids))[0])


class Autoencoder(nn.Module):
    """A dense one; `tied` by hand, the decoder is the encoder transposed."""

    def __init__(self, *, tied: bool = False, sizes: tuple[int, int] = (7, 3)) -> None:
        super().__init__()
        self.encoder = nn.Linear(*sizes)
        self.decoder = nn.Linear(*sizes[::-1])
        self.tied = tied
        if tied:
            del self.decoder.weight

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.encoder(x))
        if self.tied:
            return functional.linear(x, self.encoder.weight.t(), self.decoder.bias)
        return self.decoder(x)


class Block(nn.Module):
    """Attention written as functions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.drop = nn.Dropout(0.1)
        self.register_buffer("mask", torch.ones(5, 5).tril())
        self.register_buffer("scale", torch.ones(width), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        heads = (t.view(batch, time, 2, -1) for t in self.qkv(self.ln(x)).split(width, dim=-1))
        q, k, v = (t.transpose(1, 2) for t in heads)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(batch, time, width)
        return x + self.drop(self.proj(y)) * self.scale


class Gpt(nn.Module):
    """Tokens, positions, two blocks, a head; a constant that is a plain tensor."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, 6)
        self.wpe = nn.Embedding(5, 6)
        self.h = nn.ModuleList([Block(6) for _ in range(2)])
        self.lnf = nn.LayerNorm(6)
        self.head = nn.Linear(6, VOCABULARY, bias=False)
        self.gain = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1])) * self.gain
        for block in self.h:
            x = block(x)
        return self.head(self.lnf(x))


class Conv(nn.Module):
    """Convolution, batch normalisation, transposed convolution."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(5)
        self.deconv = nn.ConvTranspose2d(5, 3, 3, padding=1)
        if tied:
            self.deconv.weight = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.deconv(torch.relu(self.bn(self.conv(x))))


class Functions(nn.Module):
    """A layer called twice, a parameter of the root, a head that is only a function."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.place = nn.Parameter(torch.randn(5, WIDTH))
        self.square = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = (self.embed(ids) + self.place).matmul(self.square)
        return functional.linear(self.inner(self.inner(x)), self.embed.weight)


class Three(nn.Module):
    """Encoder, decoder and output over one vocabulary, and a fourth table that stays apart."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.one = nn.Embedding(VOCABULARY, WIDTH)
        self.two = nn.Embedding(VOCABULARY, WIDTH)
        self.out = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.four = nn.Embedding(VOCABULARY, WIDTH)
        if tied:
            self.two.weight = self.out.weight = self.one.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(torch.tanh(self.one(ids) + self.two(ids.flip(1)) * self.four(ids)))


class Root(nn.Module):
    """One parameter of the root, looked up and multiplied by, all in functions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(VOCABULARY, WIDTH))

    def forward(self, ids: Tensor) -> Tensor:
        return functional.linear(functional.embedding(ids, self.table), self.table)


class Stacked(nn.Module):
    """Two LSTMs, and a layer that nothing calls."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.LSTM(WIDTH, WIDTH)
        self.two = nn.LSTM(WIDTH, WIDTH)
        self.spare = nn.Linear(WIDTH, 4 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x)[0])[0]


class Spare(nn.Module):
    """A head under a name that nothing calls, as Hugging Face's T5 has, tied to the one in use."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH)
        self.out = nn.Linear(WIDTH, VOCABULARY)
        self.shared = nn.Embedding(VOCABULARY, WIDTH)
        self.shared.weight = self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.embed(ids))


class Renorm(nn.Module):
    """Lookups that rescale the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH, max_norm=1.0)
        self.decoder = nn.Linear(WIDTH, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        return self.decoder(self.embed(ids))


def ids() -> Tensor:
    """Tokens of two sequences of five."""
    return torch.arange(10).reshape(2, 5) % VOCABULARY


def export(model: nn.Module, given: Tensor, path: Path, **options: Any) -> Path:
    """Writes the model as PyTorch exports it; `decomposed` into its core operators."""
    decomposed = options.pop("decomposed", False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its own tracing of LSTM and of tree specs
        program = torch.export.export(model, (given,), **options)
        if decomposed:
            program = program.run_decompositions()
        torch.export.save(program, path)
    return path


def seeded(kind: Any, **options: Any) -> Any:
    """A model of known numbers, in eval mode."""
    torch.manual_seed(0)
    return kind(**options).eval()
