"""What can be done to a graph: `tie` makes two views lead to one variable, `untie` undoes it.

Edits know nothing of files. Each room writes the result in its own format's way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tiesurgeon.graph import Array, Graph, Storage, Variable, View, in_memory, map_views

Perm = tuple[int, ...]


def tie(
    graph: Graph,
    source: Variable,
    target: Variable,
    perm: Perm | None,
    value: Array | None = None,
) -> Graph:
    """The graph with every view of `target` leading to `source` instead.

    `perm` says how the target is made from the source: `target == source.transpose(perm)`
    (None: as it is). `value`, in the source's shape, replaces the source's numbers.
    """
    kept = source if value is None else with_value(source, value)

    def change(view: View) -> View:
        if view.variable is source:
            return replace(view, variable=kept)
        if view.variable is target:
            return replace(view, variable=kept, perm=compose(perm, view.perm))
        return view

    return map_views(graph, change)


def untie(graph: Graph, only: Collection[View] | None = None) -> Graph:
    """The graph in which each layer's view has a variable of its own, of equal value.

    Of the views of one variable the first keeps it, unless it is among `only` those that are
    to get their own (None: all the others). A layer that is called several times stays one
    layer.
    """
    seen: dict[Variable, int] = {}

    def change(view: View) -> View:
        variable = view.variable
        seen[variable] = seen.get(variable, 0) + 1
        if seen[variable] == 1 if only is None else view not in only:
            return view
        storage = Storage(variable.storage.key, view.shape, variable.storage.dtype, view.load)
        name = f"{variable.name}, use {seen[variable]}"
        return View(view.role, replace(variable, name=name, storage=storage))

    return map_views(graph, change)


def compose(first: Perm | None, second: Perm | None) -> Perm | None:
    """The one transpose that equals `first`, then `second`; None for none."""
    if first is None:
        return second
    if second is None:
        return first
    both = tuple(first[axis] for axis in second)
    return None if both == tuple(range(len(both))) else both


def inverse(perm: Perm | None) -> Perm | None:
    """The transpose that undoes `perm`."""
    return None if perm is None else tuple(perm.index(axis) for axis in range(len(perm)))


def with_value(variable: Variable, value: Array) -> Variable:
    """The variable with other numbers of the same shape."""
    if tuple(value.shape) != variable.shape:
        raise AssertionError(f"{variable.name}: {value.shape} put in place of {variable.shape}")
    return replace(variable, storage=in_memory(variable.storage.key, value))
