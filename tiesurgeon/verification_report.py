"""What `verify` found, as text and as the JSON document that scripts read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from tiesurgeon.comparison import Difference
from tiesurgeon.verification import Verification

SCHEMA = 1
_MOST_LINES = 20


def as_json(found: Verification) -> str:
    """One JSON document; what JSON has no number for is "NaN", "Infinity" or "-Infinity"."""
    document = {
        "schema": SCHEMA,
        "a": str(found.a),
        "b": str(found.b),
        "compared": found.compared,
        "inputs": [
            {"name": one.name, "shape": list(one.shape), "dtype": one.dtype} for one in found.inputs
        ],
        "outputs": [
            {
                "name": one.name,
                "shape": list(one.shape),
                "max_abs_diff": _number(one.max_abs_diff),
                "max_rel_diff": _number(one.max_rel_diff),
                "index": list(one.index),
                "a": _number(one.a),
                "b": _number(one.b),
            }
            for one in found.differences
        ],
        "missing": list(found.missing),
        "max_abs_diff": _number(found.max_abs_diff),
        "atol": _number(found.atol),
        "equal": found.equal,
        "warnings": list(found.warnings),
    }
    return json.dumps(document, indent=2, allow_nan=False)


def _number(value: complex) -> float | str:
    if isinstance(value, complex):
        if value.imag:
            return str(value)
        value = value.real
    if math.isnan(value):
        return "NaN"
    return value if math.isfinite(value) else f"{'-' * (value < 0)}Infinity"


def as_text(found: Verification) -> str:
    """A few lines: both models, the inputs, each output and how far it is apart."""
    return "\n".join(_lines(found))


def _lines(found: Verification) -> Iterator[str]:
    for label, path, format in zip("ab", (found.a, found.b), found.formats, strict=True):
        yield f"{label:11} {path} ({format})"
    for array in found.inputs:
        yield f"input       {array.name}  {array.dtype} {_shape(array.shape)}  {found.source}"
    word = "output" if found.compared == "outputs" else "weight"
    if found.compared == "weights":
        same = sum(one.same_bits for one in found.differences)
        yield f"weights     {same} of {len(found.differences)} equal bit by bit"
    apart = [one for one in found.differences if found.compared == "outputs" or not one.same_bits]
    for one in sorted(apart, key=lambda one: -one.max_abs_diff)[:_MOST_LINES]:
        yield f"{word:11} {one.name}  {_shape(one.shape)}  {_said(one)}"
    if len(apart) > _MOST_LINES:
        yield f"            ... and {len(apart) - _MOST_LINES} more, which are less apart"
    yield from (f"missing     {line}" for line in found.missing)
    if found.equal:
        yield f"equal       at most {found.max_abs_diff:.2g} apart, within {found.atol:g}"


def _said(one: Difference) -> str:
    if one.same_bits:
        return "equal bit by bit"
    return (
        f"largest difference {one.max_abs_diff:.2g} at {list(one.index)} ({_two(one)}), "
        f"relative {one.max_rel_diff:.2g}"
    )


def failure(found: Verification) -> str:
    """Why two models are not equal, on one line."""
    if found.missing:
        more = f" and {len(found.missing) - 1} more" if len(found.missing) > 1 else ""
        return f"{found.missing[0]}{more}"
    worst = found.worst
    return (
        f"{found.compared} differ by {worst.max_abs_diff:.3g}, expected at most {found.atol:g} "
        f"(--atol): {worst.name}{list(worst.index)} is {_plain(worst.a)} in {found.a} and "
        f"{_plain(worst.b)} in {found.b}"
    )


def _two(one: Difference) -> str:
    return f"{_plain(one.a)} and {_plain(one.b)}"


def _plain(value: complex) -> str:
    return f"{value:.6g}" if value.imag else f"{value.real:.6g}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape))})"
