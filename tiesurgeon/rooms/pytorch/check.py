"""The static proof: a file, read again, holds the ties and the numbers that were meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tiesurgeon.errors import ProofFailed
from tiesurgeon.find.values import bits_equal
from tiesurgeon.formats import WEIGHTS_ONLY
from tiesurgeon.graph import Graph, View
from tiesurgeon.rooms.pytorch.read import read_as


def check_written(meant: Graph, path: Path, format: str) -> None:
    """ProofFailed unless the file at `path` holds `meant`: its names, ties and bits.

    Names of weights alone that are tied must lead to one storage, those of modules to one
    variable. The state of optimizers is not compared.
    """
    again = read_as(path, format)
    if again.format != format:
        raise ProofFailed(f"{path.name}: read again, it is {again.format}, expected {format}")
    expected, found = tensors(meant), tensors(again.graph)
    if expected.keys() != found.keys():
        odd = sorted(expected.keys() ^ found.keys())[0]
        raise ProofFailed(f"{path.name}: read again, {odd} is not where it was written")
    if differing := _groups(meant, format) ^ _groups(again.graph, format):
        names = " and ".join(min(sorted(group) for group in differing))
        raise ProofFailed(f"{path.name}: read again, {names} are tied otherwise")
    for name in _one_of_each(expected):
        if not bits_equal(expected[name].load(), found[name].load()):
            raise ProofFailed(f"{path.name}: read again, {name} holds other numbers")


def tensors(graph: Graph) -> Mapping[str, View]:
    """Weights and buffers by their full names."""
    return {
        layer.name_of(view, path): view
        for path, layer in graph.walk()
        for view in layer.views
        if view.variable.kind in ("weight", "buffer")
    }


def _groups(graph: Graph, format: str) -> set[frozenset[str]]:
    """The names that are one, as sets of at least two."""
    by_holder: dict[int, set[str]] = {}
    for path, layer in graph.walk():
        is_bare = format in WEIGHTS_ONLY and not layer.op  # a checkpoint may hold a module too
        for view in layer.views:
            if view.variable.kind in ("weight", "buffer"):
                holder = view.variable.storage if is_bare else view.variable
                by_holder.setdefault(id(holder), set()).add(layer.name_of(view, path))
    return {frozenset(names) for names in by_holder.values() if len(names) > 1}


def _one_of_each(views: Mapping[str, View]) -> Iterator[str]:
    """One name of each way in which a storage is seen; the others must hold the same numbers."""
    seen: set[object] = set()
    for name, view in views.items():
        key = id(view.variable.storage), view.perm
        if key not in seen:
            seen.add(key)
            yield name
