"""The words of a PyTorch graph: what `Layer.op`, `Layer.config` and `Call.args` may hold.

`Layer.op` is one of
    placeholder        an input of forward(); config: shape, dtype
    nn.Linear, ...     a module; config: its constructor's arguments; views: its parameters
    parts.X            a class (X capitalised) or a function of rooms/pytorch/code/parts
    nn.Parameter       a parameter read as a value; one view, transposed perhaps
    graph              a nested model, its `body` a graph of its own
    torch.f, F.f       a function
    .f                 a method of the first argument
    shape              its attribute of that name
    + - * / @ ...      an operator, and [] for indexing
Functions, methods and operators have no state: one `Layer` of that name serves every call.
A recurrent module called with `mask=` runs over the steps where the mask is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RECURRENT = frozenset(("nn.LSTM", "nn.GRU", "nn.RNN"))
OPERATORS = frozenset(("+", "-", "*", "/", "//", "%", "**", "@", "==", "!=", "<", "<=", ">", ">="))
BITWISE = frozenset(("&", "|", "^"))
UNARY = frozenset(("neg", "~"))


@dataclass(frozen=True)
class Name:
    """A dotted name of torch used as a value: `torch.float64`, `parts.hard_sigmoid`."""

    text: str


@dataclass(frozen=True)
class Spread:
    """The items of a value given one by one: `*value`."""

    value: Any


def is_module(op: str) -> bool:
    """Whether layers of that op are attributes of the model, called through `self`."""
    if op == "graph":
        return True
    family, _, name = op.rpartition(".")
    return family in ("nn", "parts") and name[:1].isupper() and op != "nn.Parameter"
