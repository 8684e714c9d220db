"""The table of layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tiesurgeon.graph import Graph, Layer, Value
from tiesurgeon.inspection import Inspection, is_parameter

# The longest words of a column that are kept in one piece.
_WHOLE = {"layer": 26, "type": 16, "takes": 0, "weights": 30, "params": 15}


@dataclass(frozen=True)
class _Row:
    depth: int
    layer: Layer
    takes: str


def layer_table(found: Inspection, console: Console) -> Table:
    """The widest table that fits: a mere chain of layers need not say what each takes."""
    wide = _columns(found, gap=2)
    unbounded = console.options.update(max_width=10_000)
    if console.measure(wide, options=unbounded).maximum <= console.width:
        return wide
    return _columns(found, gap=1, takes=not _is_chain(found.graph))


def _is_chain(graph: Graph) -> bool:
    pairs = zip(graph.calls[1:], graph.calls, strict=False)
    return all(call.inputs == (Value(before.id),) for call, before in pairs)


def _columns(found: Inspection, *, gap: int, takes: bool = True) -> Table:
    several = len({v.storage.dtype for v in found.graph.variables()}) > 1
    rows = list(_rows(found.graph, 0))
    cells = {
        "layer": ["  " * row.depth + plain(row.layer.name) for row in rows],
        "type": [plain(row.layer.op) for row in rows],
        "takes": [row.takes if takes else "" for row in rows],
        "weights": [_weights(row.layer, several=several) for row in rows],
        "params": [_count(row.layer) for row in rows],
    }
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="dim", pad_edge=False)
    shown = [name for name, column in cells.items() if any(column)]
    for name in shown:
        # The longest names are folded, so that ordinary ones stay whole.
        longest = max(len(line) for text in cells[name] for line in (*text.splitlines(), ""))
        table.add_column(
            name,
            overflow="fold",
            no_wrap=longest <= _WHOLE[name],
            justify="right" if name == "params" else "left",
        )
    for number in range(len(rows)):
        table.add_row(*(Text(cells[name][number]) for name in shown))
    return table


def _rows(graph: Graph, depth: int) -> Iterator[_Row]:
    for layer in graph.layers:
        yield from _row(layer, depth, "\n".join(_takes(graph, layer)))


def _row(layer: Layer, depth: int, takes: str) -> Iterator[_Row]:
    yield _Row(depth, layer, takes)
    for inner in layer.inner:
        yield from _row(inner, depth + 1, "")
    if layer.body is not None:
        yield from _rows(layer.body, depth + 1)


def _takes(graph: Graph, layer: Layer) -> list[str]:
    """The layers whose results each call takes; calls that take the same are said once."""
    taken = (
        ",\n".join(dict.fromkeys(_source(graph, value) for value in call.inputs))
        for call in graph.calls_of(layer.name)
    )
    return [takes for takes in dict.fromkeys(taken) if takes]


def _source(graph: Graph, value: Value) -> str:
    name = plain(graph.call_by_id[value.call].layer)
    return name if value.index == 0 else f"{name}[{value.index}]"


def _weights(layer: Layer, *, several: bool) -> str:
    lines = []
    for view in layer.views:
        shape = "x".join(str(dim) for dim in view.shape) or "scalar"
        dtype = f" {view.variable.storage.dtype.name}" if several else ""
        is_state = view.variable.kind == "optimizer slot"  # not trained, and not frozen either
        frozen = "" if view.variable.trainable or is_state else " frozen"
        lines.append(f"{plain(view.role)} {shape}{dtype}{frozen}")
    return "\n".join(lines)


def _count(layer: Layer) -> str:
    count = sum(v.variable.storage.size for v in layer.views if is_parameter(v.variable))
    return f"{count:,}" if count else ""


def plain(text: str) -> str:
    """Names come from the file: nothing in them may steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
