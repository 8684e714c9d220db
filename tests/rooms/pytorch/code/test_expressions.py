"""Operators without needless parentheses, and with those that are needed."""

from __future__ import annotations

import pytest

from tiesurgeon.graph import Call, Graph, Layer, Value
from tiesurgeon.rooms.pytorch.code.expressions import (
    COMPARE,
    OR,
    POWER,
    PRODUCT,
    SUM,
    UNARY,
    Expression,
    render,
)

A, B = Value("a"), Value("b")
NAMES = {
    A: Expression("a"),
    B: Expression("b"),
    Value("sum"): Expression("a + b", SUM),
    Value("product"): Expression("a * b", PRODUCT),
    Value("minus"): Expression("-a", UNARY),
    Value("power"): Expression("a**b", POWER),
    Value("equal"): Expression("a == b", COMPARE),
    Value("or"): Expression("a | b", OR),
}


@pytest.mark.parametrize(
    ("op", "args", "text"),
    [
        ("*", (Value("sum"), B), "(a + b) * b"),
        ("+", (Value("product"), B), "a * b + b"),
        ("-", (A, Value("sum")), "a - (a + b)"),
        ("-", (Value("sum"), A), "a + b - a"),
        ("/", (A, Value("product")), "a / (a * b)"),
        ("==", (Value("equal"), B), "(a == b) == b"),
        ("&", (Value("or"), Value("equal")), "(a | b) & (a == b)"),
        ("**", (A, 2), "a**2"),
        ("**", (Value("sum"), 2), "(a + b) ** 2"),
        ("**", (Value("power"), 2), "(a**b) ** 2"),
        ("**", (2, Value("minus")), "2 ** (-a)"),
        ("neg", (Value("power"),), "-(a**b)"),
        ("neg", (Value("sum"),), "-(a + b)"),
        ("~", (A,), "~a"),
        ("+", (A, -1.0), "a + -1.0"),
        (".sum", (Value("sum"), 1), "(a + b).sum(1)"),
        (".abs", (Value("minus"),), "(-a).abs()"),
        ("[]", (A, (slice(None), -1)), "a[:, -1]"),
        ("[]", (A, (slice(1, B), ..., None)), "a[1:b, ..., None]"),
        ("torch.cat", ([A, B],), "torch.cat([a, b])"),
        ("F.pad", (A, (1, 2)), "F.pad(a, (1, 2))"),
        ("parts.squareplus", (A,), "squareplus(a)"),
    ],
)
def test_render(op: str, args: tuple[object, ...], text: str) -> None:
    graph = Graph("g", "nn.Module", (Layer(op, op),))
    assert render(graph, Call("c", op, args), {}, NAMES.__getitem__).text == text
