"""An inspection as text, as a page, and as the JSON document that scripts read."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any

from tiesurgeon.find import Candidate
from tiesurgeon.graph import Call, Graph, Layer, Value, View
from tiesurgeon.inspection import Inspection, Inspections

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
_WIDTH = 80
_WIDEST = 120


def as_json(found: Inspection | Inspections) -> str:
    """One JSON document; of several files `files` and what is equal `between` them."""
    return json.dumps(document(found), indent=2)


def as_text(
    found: Inspection | Inspections, *, width: int | None = None, color: bool | None = None
) -> str:
    """What `inspect` prints, at the terminal's width, coloured on a terminal only."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty() if color is None else color
    measured = Console().width if is_terminal else _WIDTH
    console = Console(
        file=io.StringIO(),
        width=width or min(measured, _WIDEST),
        force_terminal=is_terminal,
        color_system="standard" if is_terminal else None,
        highlight=False,
        legacy_windows=False,
    )
    _print(console, found)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def as_html(found: Inspection | Inspections) -> str:
    """The same as a page that stands alone."""
    from rich.console import Console

    console = Console(file=io.StringIO(), record=True, width=_WIDEST, highlight=False)
    _print(console, found)
    return console.export_html(inline_styles=True)


def _print(console: Console, found: Inspection | Inspections) -> None:
    from tiesurgeon.report_text import print_inspection, print_several

    if isinstance(found, Inspections):
        print_several(console, found)
    else:
        print_inspection(console, found)


# --- JSON -------------------------------------------------------------------------------------


def document(found: Inspection | Inspections) -> dict[str, Any]:
    """The JSON document as a dict."""
    if isinstance(found, Inspections):
        return {
            "schema": SCHEMA,
            "files": [document(one) for one in found.files],
            "between": [_candidate(candidate) for candidate in found.between],
        }
    return {
        "schema": SCHEMA,
        "path": str(found.path),
        "format": found.format,
        "writer": found.writer,
        "parameters": {"total": found.total_parameters, "unique": found.unique_parameters},
        "bytes": {"stored": found.stored_bytes, "unique": found.unique_bytes},
        "layers": _layers(found.graph, ""),
        "ties": [
            {
                "source": tie.source,
                "target": tie.target,
                "perm": _list(tie.perm),
                "kind": tie.kind,
                "uses": tie.uses,
            }
            for tie in found.ties
        ],
        "candidates": [_candidate(candidate) for candidate in found.candidates],
        "warnings": list(found.warnings),
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "source": candidate.source,
        "target": candidate.target,
        "perm": _list(candidate.perm),
        "role": candidate.role,
        "match": candidate.match,
        "relative_difference": candidate.relative_difference,
        "cosine": candidate.cosine,
        "saves_bytes": candidate.saves_bytes,
        "reason": candidate.reason,
    }


def _layers(graph: Graph, prefix: str) -> list[dict[str, Any]]:
    """Layers of one level, each followed by what it wraps or nests."""
    used = {value for call in graph.calls for value in call.inputs}
    rows: list[dict[str, Any]] = []
    for layer in graph.layers:
        calls = [_call(call, used) for call in graph.calls_of(layer.name)]
        rows += _layer(layer, f"{prefix}{layer.name}", calls)
    return rows


def _layer(layer: Layer, path: str, calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    variables = [_variable(path, view) for view in layer.views]
    rows = [{"name": path, "op": layer.op, "calls": calls, "variables": variables}]
    for inner in layer.inner:
        rows += _layer(inner, f"{path}/{inner.name}", [])
    return rows + (_layers(layer.body, f"{path}/") if layer.body is not None else [])


def _call(call: Call, used: set[Value]) -> dict[str, Any]:
    more = sorted(value.index for value in used if value.call == call.id and value.index)
    outputs = [Value(call.id), *(Value(call.id, index) for index in more)]
    return {
        "inputs": [value_name(value) for value in call.inputs],
        "outputs": [value_name(value) for value in outputs],
    }


def value_name(value: Value) -> str:
    """A call's only or first output bears the call's name, the others a number too."""
    return value.call if value.index == 0 else f"{value.call}[{value.index}]"


def _variable(path: str, view: View) -> dict[str, Any]:
    return {
        "name": f"{path}/{view.role}",
        "shape": list(view.shape),
        "dtype": view.variable.storage.dtype.name,
        "storage": view.variable.storage.key,
        "trainable": view.variable.trainable,
    }


def _list(perm: tuple[int, ...] | None) -> list[int] | None:
    return None if perm is None else list(perm)
