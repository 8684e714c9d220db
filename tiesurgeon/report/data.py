"""The JSON document of an inspection."""

from __future__ import annotations

from typing import Any

from tiesurgeon.find import Candidate
from tiesurgeon.graph import Call, Graph, Layer, Value, View
from tiesurgeon.inspection import Inspection, Inspections

SCHEMA = 1


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
    variables = [_variable(layer, path, view) for view in layer.views]
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


def _variable(layer: Layer, path: str, view: View) -> dict[str, Any]:
    return {
        "name": layer.name_of(view, path),
        "shape": list(view.shape),
        "dtype": view.variable.storage.dtype.name,
        "storage": view.variable.storage.key,
        "trainable": view.variable.trainable,
    }


def _list(perm: tuple[int, ...] | None) -> list[int] | None:
    return None if perm is None else list(perm)
