"""Recurrent modules computed step by step, for options that nn.LSTM, nn.GRU and nn.RNN lack."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class StepwiseLSTM(nn.LSTM):
    """An LSTM with any activations and with dropout between steps."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        recurrent_activation: Callable[[Tensor], Tensor] = torch.sigmoid,
        recurrent_dropout: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, batch_first=True)
        self.activation = activation
        self.recurrent_activation = recurrent_activation
        self.recurrent_dropout = recurrent_dropout

    def forward(self, x: Tensor, state=None, mask: Tensor | None = None):
        if mask is None and is_plain(self):
            return super().forward(x, state)
        gates = F.linear(x, self.weight_ih_l0, self.bias_ih_l0 if self.bias else None)
        if state is None:
            zeros = x.new_zeros(1, x.shape[0], self.hidden_size)
            state = (zeros, zeros)
        keep = dropout_between_steps(self, state[0][0])

        def step(gates: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
            i, f, g, o = (gates + F.linear(h * keep, self.weight_hh_l0)).chunk(4, dim=-1)
            i, f, o = (self.recurrent_activation(gate) for gate in (i, f, o))
            c = f * c + i * self.activation(g)
            return o * self.activation(c), c

        output, (h, c) = run_steps(step, gates, (state[0][0], state[1][0]), mask)
        return output, (h.unsqueeze(0), c.unsqueeze(0))


class StepwiseGRU(nn.GRU):
    """A GRU with any activations, with dropout between steps, and with the reset gate before
    or after the recurrent product."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        recurrent_activation: Callable[[Tensor], Tensor] = torch.sigmoid,
        recurrent_dropout: float = 0.0,
        reset_after: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, batch_first=True)
        self.activation = activation
        self.recurrent_activation = recurrent_activation
        self.recurrent_dropout = recurrent_dropout
        self.reset_after = reset_after

    def forward(self, x: Tensor, state: Tensor | None = None, mask: Tensor | None = None):
        if mask is None and self.reset_after and is_plain(self):
            return super().forward(x, state)
        size = self.hidden_size
        gates = F.linear(x, self.weight_ih_l0, self.bias_ih_l0 if self.bias else None)
        weight, new_weight = self.weight_hh_l0.split((2 * size, size))
        bias, new_bias = self.bias_hh_l0.split((2 * size, size)) if self.bias else (None, None)
        h = x.new_zeros(x.shape[0], size) if state is None else state[0]
        keep = dropout_between_steps(self, h)

        def step(gates: Tensor, h: Tensor) -> tuple[Tensor]:
            r, z, n = gates.chunk(3, dim=-1)
            h_r, h_z = F.linear(h * keep, weight, bias).chunk(2, dim=-1)
            r, z = self.recurrent_activation(r + h_r), self.recurrent_activation(z + h_z)
            if self.reset_after:
                n = self.activation(n + r * F.linear(h * keep, new_weight, new_bias))
            else:
                n = self.activation(n + F.linear(r * h * keep, new_weight, new_bias))
            return (z * h + (1 - z) * n,)

        output, (h,) = run_steps(step, gates, (h,), mask)
        return output, h.unsqueeze(0)


class StepwiseRNN(nn.RNN):
    """A simple recurrence with any activation and with dropout between steps."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        activation: Callable[[Tensor], Tensor] = torch.tanh,
        recurrent_dropout: float = 0.0,
    ) -> None:
        super().__init__(input_size, hidden_size, bias=bias, batch_first=True)
        self.activation = activation
        self.recurrent_dropout = recurrent_dropout

    def forward(self, x: Tensor, state: Tensor | None = None, mask: Tensor | None = None):
        if mask is None and is_plain(self):
            return super().forward(x, state)
        inputs = F.linear(x, self.weight_ih_l0, self.bias_ih_l0 if self.bias else None)
        h = x.new_zeros(x.shape[0], self.hidden_size) if state is None else state[0]
        keep = dropout_between_steps(self, h)

        def step(inputs: Tensor, h: Tensor) -> tuple[Tensor]:
            return (self.activation(inputs + F.linear(h * keep, self.weight_hh_l0)),)

        output, (h,) = run_steps(step, inputs, (h,), mask)
        return output, h.unsqueeze(0)


def is_plain(rnn) -> bool:
    """Whether torch's own kernels do: in eval mode nothing is dropped."""
    gate = getattr(rnn, "recurrent_activation", torch.sigmoid)
    return not rnn.training and rnn.activation is torch.tanh and gate is torch.sigmoid


def run_steps(step, inputs: Tensor, state: tuple[Tensor, ...], mask: Tensor | None):
    """Runs `step` over time. A masked step keeps the state and repeats the output before it,
    zeros at the start."""
    output, outputs = torch.zeros_like(state[0]), []
    for time in range(inputs.shape[1]):
        new = step(inputs[:, time], *state)
        if mask is not None:
            keep = mask[:, time].unsqueeze(-1)
            output = torch.where(keep, new[0], output)
            state = tuple(torch.where(keep, a, b) for a, b in zip(new, state, strict=True))
        else:
            output, state = new[0], new
        outputs.append(output)
    return torch.stack(outputs, dim=1), state


def dropout_between_steps(rnn, h: Tensor) -> Tensor:
    """What to multiply the state by: the same numbers are dropped at every step."""
    return F.dropout(torch.ones_like(h), rnn.recurrent_dropout, rnn.training)


def linear(x: Tensor) -> Tensor:
    """The input itself."""
    return x
