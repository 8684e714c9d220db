"""Attention as Keras computes it, masks included."""

import torch
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention in several heads, whose widths need not add up to the input's.

    Where a query may attend to nothing at all, it attends to everything alike; with dropout, to
    nothing (Keras computes the two in different ways).
    """

    def __init__(
        self,
        size: int,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        key_size: int | None = None,
        value_size: int | None = None,
        output_size: int | None = None,
        bias: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        value_size = value_size or size
        value_width = num_heads * (value_dim or key_dim)
        self.num_heads = num_heads
        self.query = nn.Linear(size, num_heads * key_dim, bias=bias)
        self.key = nn.Linear(key_size or value_size, num_heads * key_dim, bias=bias)
        self.value = nn.Linear(value_size, value_width, bias=bias)
        self.output = nn.Linear(value_width, output_size or size, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        key_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        key = value if key is None else key
        mask = attend_mask(query, value, query_mask, value_mask, causal)
        for other in (None if key_mask is None else key_mask.unsqueeze(1), attention_mask):
            if other is not None:
                mask = mask & other.bool()
        q, k, v = (
            projected.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for projected in (self.query(query), self.key(key), self.value(value))
        )
        scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
        mask = mask.unsqueeze(1)
        weights = scores.masked_fill(~mask, torch.finfo(scores.dtype).min / 2).softmax(dim=-1)
        if self.dropout.p:
            weights = self.dropout(weights * mask)
        return self.output((weights @ v).transpose(1, 2).flatten(2))


class Attention(nn.Module):
    """Dot-product attention without projections (Luong), with a factor learned if `scaled`."""

    def __init__(self, scaled: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(())) if scaled else 1.0
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key: Tensor | None = None,
        query_mask: Tensor | None = None,
        value_mask: Tensor | None = None,
        causal: bool = False,
    ) -> Tensor:
        scores = self.scores(query, value if key is None else key)
        mask = attend_mask(query, value, None, value_mask, causal)
        weights = torch.where(mask, scores, scores - 1e9).softmax(dim=-1)
        result = self.dropout(weights) @ value
        return result if query_mask is None else result * query_mask.unsqueeze(-1)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """How much each query attends to each key, (batch, queries, keys)."""
        return query @ key.transpose(1, 2) * self.scale


class AdditiveAttention(Attention):
    """Attention by a sum of tanh (Bahdanau), with a factor for every feature if `features`."""

    def __init__(self, features: int | None = None, dropout: float = 0.0) -> None:
        super().__init__(dropout=dropout)
        if features is not None:
            self.scale = nn.Parameter(torch.ones(features))

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        return (self.scale * torch.tanh(query.unsqueeze(2) + key.unsqueeze(1))).sum(dim=-1)


def attend_mask(
    query: Tensor,
    value: Tensor,
    query_mask: Tensor | None,
    value_mask: Tensor | None,
    causal: bool,
) -> Tensor:
    """Which query may attend to which value, (batch or 1, queries, values)."""
    queries, values = query.shape[1], value.shape[1]
    mask = torch.ones(1, queries, values, dtype=torch.bool, device=query.device)
    if causal:
        mask = mask.tril()
    if query_mask is not None:
        mask = mask & query_mask.unsqueeze(2)
    if value_mask is not None:
        mask = mask & value_mask.unsqueeze(1)
    return mask
