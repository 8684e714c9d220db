"""What is one already, and what only looks so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tiesurgeon.find.flow import Flow, unfold
from tiesurgeon.find.values import Perm
from tiesurgeon.graph import Graph, View
from tiesurgeon.names import Spot


@dataclass(frozen=True)
class Tie:
    """Two uses of one variable (`tie`), or two variables on one storage (`alias`).

    Both are full variable names; they are the same where one layer is called several
    times. `uses` counts all uses of the variable; `perm` is how the target sees it.
    """

    source: str
    target: str
    perm: Perm | None
    kind: Literal["tie", "alias"]
    uses: int


def ties(graph: Graph) -> tuple[Tie, ...]:
    """Everything that is shared in the graph, in order of first use."""
    flow = unfold(graph)
    holders: dict[int, list[Spot]] = {}
    storages: dict[int, dict[int, Spot]] = {}
    uses = _uses(flow)
    for path, layer in graph.walk():
        for view in layer.views:
            spot = Spot(path, layer, view)
            holders.setdefault(id(view.variable), []).append(spot)
            if _could_train(view):
                sharing = storages.setdefault(id(view.variable.storage), {})
                sharing.setdefault(id(view.variable), spot)
    found: list[Tie] = []
    for variable, spots in holders.items():
        count = max(uses.get(variable, 0), len(spots))
        first, *others = spots
        found += [_tie(first, other, count) for other in others]
        if not others and count > 1:
            found.append(Tie(first.variable, first.variable, _reversed(flow, first), "tie", count))
    for variables in storages.values():
        first, *others = owner_first(variables.values())
        found += [Tie(first.variable, o.variable, _relative(first, o), "alias", 1) for o in others]
    return tuple(found)


def owner_first(spots: Iterable[Spot]) -> list[Spot]:
    """Those that share a storage, the one that the file names the storage after before others."""

    def is_other(spot: Spot) -> bool:
        return spot.view is None or spot.variable != spot.view.variable.storage.key

    return sorted(spots, key=is_other)


def _could_train(view: View) -> bool:
    """True for what an alias means something for: no counters and moments of an optimizer."""
    return view.variable.kind in ("weight", "buffer") and len(view.shape) > 0


def _uses(flow: Flow) -> dict[int, int]:
    """How many calls use each variable, by its identity."""
    count: dict[int, int] = {}
    for node in flow.nodes:
        for identity in {id(view.variable) for view in node.layer.all_views()}:
            count[identity] = count.get(identity, 0) + 1
    return count


def _tie(first: Spot, other: Spot, count: int) -> Tie:
    return Tie(first.variable, other.variable, _relative(first, other), "tie", count)


def _relative(first: Spot, other: Spot) -> Perm | None:
    """How the second sees what the first sees as it is."""
    one = first.view.perm if first.view is not None else None
    two = other.view.perm if other.view is not None else None
    if one == two:
        return None
    rank = len(one or two or ())
    stored, seen = one or tuple(range(rank)), two or tuple(range(rank))
    return tuple(stored.index(axis) for axis in seen)


def _reversed(flow: Flow, spot: Spot) -> Perm | None:
    """A ReversibleEmbedding called with `reverse=True` uses its table transposed."""
    if spot.layer.op != "ReversibleEmbedding" or spot.layer.view("reverse_embeddings"):
        return None
    calls = [node.call for node in flow.nodes if node.path == spot.path]
    backward = [call for call in calls if call.kwargs.get("reverse") or True in call.args[1:]]
    return (1, 0) if backward else None
