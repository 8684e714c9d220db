"""Edits made in a document and in its graph alike, and what is written checked against both."""

from collections.abc import Sequence
from pathlib import Path

from tiesurgeon import edits
from tiesurgeon.edits import Perm
from tiesurgeon.graph import Array, Graph, View
from tiesurgeon.rooms.pytorch.check import check_written, tensors
from tiesurgeon.rooms.pytorch.exported import read_exported

Pair = tuple[str, str, Perm | None]


def view(graph: Graph, name: str) -> View:
    """What a full name stands for."""
    return tensors(graph)[name]


def numbers(path: Path, name: str) -> Array:
    """The array under a full name of a file."""
    return view(read_exported(path).graph, name).load()


def edited(
    path: Path, output: Path, ties: Sequence[Pair] = (), untied: Sequence[str] = ()
) -> tuple[str, ...]:
    """Writes `output` with ties made (the source's numbers kept) and undone; the warnings."""
    found = read_exported(path)
    graph, document = found.graph, found.document
    for source, target, perm in ties:
        one, other = view(graph, source), view(graph, target)
        stored = edits.compose(edits.compose(one.perm, perm), edits.inverse(other.perm))
        graph = edits.tie(graph, one.variable, other.variable, stored)
        document.tie(source, target, perm)
    for name in untied:
        graph = edits.untie(graph, [view(graph, name)])
        document.untie(name)
    document.write(output, {"source": path.name})
    check_written(graph, output, "torch-export")
    return tuple(document.warnings)
