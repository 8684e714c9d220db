"""Recurrence that skips masked steps."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


def run_masked(rnn: nn.RNNBase, x: Tensor, mask: Tensor, state=None):
    """Runs `rnn` over the steps where `mask` is true, wherever they lie.

    A masked step leaves the state alone and repeats the output before it, zeros at the start.
    """
    lengths = mask.sum(dim=1)
    order = mask.logical_not().int().argsort(dim=1, stable=True)  # steps to run come first
    x = x.gather(1, order.unsqueeze(-1).expand_as(x))
    packed = pack_padded_sequence(
        x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
    )
    packed, final = rnn(packed, state)
    x, _ = pad_packed_sequence(packed, batch_first=True, total_length=mask.shape[1])

    step = mask.cumsum(dim=1) - 1  # the latest step run, -1 before the first one
    output = x.gather(1, step.clamp(min=0).unsqueeze(-1).expand(-1, -1, x.shape[-1]))
    output = output.masked_fill((step < 0).unsqueeze(-1), 0)
    return output, keep_initial(final, state, lengths == 0)


def keep_initial(final, initial, empty: Tensor):
    """The final states, with the initial ones in the rows that had no step to run."""
    if isinstance(final, tuple):
        pairs = zip(final, initial or (None, None), strict=True)
        return tuple(keep_initial(after, before, empty) for after, before in pairs)
    before = torch.zeros_like(final) if initial is None else initial
    return torch.where(empty[:, None], before, final)


def masked_mean(x: Tensor, mask: Tensor, dim: int = 1, keepdim: bool = False) -> Tensor:
    """The mean over the steps, axis `dim` of x, where `mask` is true."""
    mask = mask.unsqueeze(3 - dim)
    total = x.masked_fill(mask.logical_not(), 0).sum(dim, keepdim=keepdim)
    return total / mask.sum(dim, keepdim=keepdim)
