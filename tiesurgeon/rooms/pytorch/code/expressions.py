"""Calls of a PyTorch graph as Python expressions, with no needless parentheses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiesurgeon.graph import Call, Graph, Layer, Value, values_in
from tiesurgeon.mapping.torch_words import RECURRENT, Spread, is_module
from tiesurgeon.rooms.pytorch.code.formatting import literal, slice_text

# How tightly operators bind; names, calls and subscripts bind at ATOM.
ATOM, POWER, UNARY, PRODUCT, SUM, AND, XOR, OR, COMPARE = 9, 8, 7, 6, 5, 4, 3, 2, 1
BINDING = {
    "**": POWER,
    **dict.fromkeys(("*", "/", "//", "%", "@"), PRODUCT),
    **dict.fromkeys(("+", "-"), SUM),
    "&": AND,
    "^": XOR,
    "|": OR,
    **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), COMPARE),
}
PREFIXES = {"neg": "-", "~": "~"}


@dataclass(frozen=True)
class Expression:
    """Source text and how tightly its outermost operator binds."""

    text: str
    binding: int = ATOM

    def within(self, binding: int) -> str:
        """The text, in parentheses where an operator that binds so tightly needs them."""
        return self.text if self.binding >= binding else f"({self.text})"


Look = Callable[[Value], Expression]


def render(graph: Graph, call: Call, parameter: Mapping[str, str], look: Look) -> Expression:
    """The call as an expression; `look` gives that of a value, `parameter` that of each
    nn.Parameter layer."""
    layer = graph.layer(call.layer)
    op = layer.op
    if op == "placeholder":
        return Expression(layer.name)
    if op == "nn.Parameter":
        return Expression(parameter[layer.name])
    if is_module(op):
        return _module(layer, call, look)
    if op in PREFIXES:
        return Expression(PREFIXES[op] + _operand(call.args[0], look), UNARY)
    if op in BINDING:
        left, right = (_value(arg, look) for arg in call.args)
        binding = BINDING[op]
        # Of two equally tight operators the left one goes first; ** goes the other way, and
        # comparisons must not be chained.
        tighter = binding + 1
        left_binding = tighter if op == "**" or binding == COMPARE else binding
        sides = left.within(left_binding), right.within(tighter)
        hugs = op == "**" and all(re.fullmatch(r"[\w.]+", side) for side in sides)
        text = (op if hugs else f" {op} ").join(sides)
        return Expression(text, binding)
    if op == "[]":
        return Expression(f"{_value(call.args[0], look).within(ATOM)}[{_index(call, look)}]")
    if op == "shape":
        return Expression(f"{_value(call.args[0], look).within(ATOM)}.shape")
    if op.startswith("."):
        head = _value(call.args[0], look).within(ATOM)
        return Expression(f"{head}{op}({_arguments(call.args[1:], call.kwargs, look)})")
    return Expression(f"{op.removeprefix('parts.')}({_arguments(call.args, call.kwargs, look)})")


def _operand(value: Any, look: Look) -> str:
    """What a sign stands before; -a**b is right, but -(a**b) is what people read."""
    operand = _value(value, look)
    return f"({operand.text})" if operand.binding == POWER else operand.within(UNARY)


def _module(layer: Layer, call: Call, look: Look) -> Expression:
    if "mask" in call.kwargs and layer.op in RECURRENT:
        args = [call.kwargs["mask"], *call.args[1:]]
        first = _value(call.args[0], look).text
        return Expression(f"run_masked(self.{layer.name}, {first}, {_arguments(args, {}, look)})")
    return Expression(f"self.{layer.name}({_arguments(call.args, call.kwargs, look)})")


def _arguments(args: Sequence[Any], options: Mapping[str, Any], look: Look) -> str:
    texts = [_value(arg, look).text for arg in args]
    texts += [f"{name}={_value(value, look).text}" for name, value in options.items()]
    return ", ".join(texts)


def _index(call: Call, look: Look) -> str:
    index = call.args[1]
    if isinstance(index, tuple):
        return ", ".join(_value(item, look).text for item in index)
    return _value(index, look).text


def _value(value: Any, look: Look) -> Expression:
    """A value, or a structure of values and constants."""
    if isinstance(value, Value):
        return look(value)
    if isinstance(value, Spread):
        return Expression(f"*{_value(value.value, look).within(ATOM)}")
    if isinstance(value, slice):
        bounds = (value.start, value.stop, value.step)
        return Expression(
            slice_text(*(None if bound is None else _value(bound, look).text for bound in bounds))
        )
    if isinstance(value, (list, tuple)) and any(True for _ in values_in(value)):
        items = ", ".join(_value(item, look).text for item in value)
        if isinstance(value, list):
            return Expression(f"[{items}]")
        return Expression(f"({items},)" if len(value) == 1 else f"({items})")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value < 0:
        return Expression(literal(value), UNARY)
    return Expression(literal(value))
