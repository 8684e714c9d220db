"""Recurrent layers whose exported programs take sequences of any length.

PyTorch finds the shapes of `aten.lstm` by running it step by step, which fixes the number of
steps. Its shapes need no steps; told so, the program still holds the plain operator.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_aten = torch.ops.aten
_OPERATORS = (_aten.lstm.input, _aten.gru.input, _aten.rnn_tanh.input, _aten.rnn_relu.input)
_KEY = torch._C.DispatchKey.CompositeImplicitAutograd


@contextmanager
def any_length() -> Iterator[None]:
    """While it lasts, nothing recurrent can be computed, only traced."""
    before = [dict(operator.py_kernels) for operator in _OPERATORS]
    for operator in _OPERATORS:
        operator.py_kernels.pop(_KEY, None)
        operator.py_impl(_KEY)(_lstm_shapes if operator is _aten.lstm.input else _shapes)
    try:
        yield
    finally:
        for operator, kernels in zip(_OPERATORS, before, strict=True):
            operator.py_kernels.clear()
            operator.py_kernels.update(kernels)
            operator._dispatch_cache.clear()


def _outputs(x: torch.Tensor, hidden: torch.Tensor, is_bidirectional: bool) -> torch.Tensor:
    return x.new_empty((*x.shape[:2], hidden.shape[-1] * (2 if is_bidirectional else 1)))


def _lstm_shapes(
    x: torch.Tensor, hidden: Any, weights: Any, biases: bool, layers: int, dropout: float,
    training: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    h, c = hidden
    return _outputs(x, h, bidirectional), torch.empty_like(h), torch.empty_like(c)


def _shapes(
    x: torch.Tensor, h: torch.Tensor, weights: Any, biases: bool, layers: int, dropout: float,
    training: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    return _outputs(x, h, bidirectional), torch.empty_like(h)
