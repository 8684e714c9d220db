"""The nodes of the graph as uses of modules, and of functions where no module claims them.

Nodes of one layer of `torch.nn`, or of a module of someone's own that holds weights and no
other modules, are one call of it; all others are calls of a function each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from tiesurgeon.rooms.pytorch.exported.program import Program, names_in
from tiesurgeon.rooms.pytorch.exported.scopes import Scope, scope_of


@dataclass(frozen=True)
class Segment:
    """Nodes, by number, that are one call; `scope` is None where they are no module's own."""

    nodes: tuple[int, ...]
    scope: Scope | None = None


def segments(program: Program, holders: Collection[str]) -> Iterator[Segment]:
    """All calls in order; `holders` are the modules that hold or use weights.

    Nodes that give no tensor, such as sizes and checks of them, are left out.
    """
    within = _Modules(program, holders)
    gathered: list[int] = []
    at: Scope | None = None
    for number, node in enumerate(program.nodes):
        if not any(name in program.metas for name in names_in(node["outputs"])):
            continue
        scope = scope_of(node)
        if gathered and (scope is None or at is None or scope.key != at.key):
            yield Segment(tuple(gathered), at)
            gathered = []
        if scope is not None and within.is_layer(scope):
            gathered.append(number)
            at = scope
        else:
            yield Segment((number,))
    if gathered:
        yield Segment(tuple(gathered), at)


class _Modules:
    def __init__(self, program: Program, holders: Collection[str]) -> None:
        self._holders = holders
        found = (scope_of(node) for node in program.nodes)
        paths = {scope.path for scope in found if scope is not None} | set(holders)
        self._parents = {path[:end] for path in paths for end in _dots(path)} | {""}

    def is_layer(self, scope: Scope) -> bool:
        """True for a module whose nodes are shown as one call."""
        if not scope.path:
            return False
        if scope.is_torch_layer:
            return True
        return scope.path in self._holders and scope.path not in self._parents


def _dots(path: str) -> Iterator[int]:
    return (place for place, letter in enumerate(path) if letter == ".")
