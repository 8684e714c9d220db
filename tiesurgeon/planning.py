"""From pairs that a user names to a changed graph: which variables, which way, whose values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tiesurgeon import edits, find, fit, pairing
from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Array, Graph, View
from tiesurgeon.model import Model, Step
from tiesurgeon.names import Spot, resolve
from tiesurgeon.orientation import TRANSPOSED
from tiesurgeon.outcome import MadeTie


@dataclass
class Plan:
    """A graph on its way to being changed, and the model file that follows each step.

    `before` is the same model with nothing changed yet; they differ from the start only where
    a custom layer was read as what it stands for.
    """

    model: Model
    method: str | None = None
    steps: list[Step] = field(default_factory=list)
    untied: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = self.before = self.model.graph

    @property
    def ties(self) -> tuple[MadeTie, ...]:
        """The ties made so far."""
        return tuple(MadeTie(step.source, step.target, step.perm) for step in self.steps)

    @property
    def values_changed(self) -> bool:
        """True if a tie put other numbers in place."""
        return any(step.value is not None for step in self.steps)

    def tie_pairs(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Every `--pair`; TieRefused where the format cannot express them all."""
        for source, target in pairs:
            self._tie(*self._found(source, target))
        self.model.refuse_inexpressible(self.graph)

    def tie_duplicates(self) -> None:
        """`--duplicates`: every bit-equal pair, those that cannot be expressed left with a word."""
        for source, target in find.duplicates(self.graph):
            try:
                self._tie(*self._found(source, target), check=True)
            except TieRefused as reason:
                self.warnings.append(f"left as they are: {reason}")

    def _found(self, source: str, target: str) -> tuple[Spot, Spot]:
        one, other = pairing.find_spots(self.graph, source, target)
        ready = self.model.prepared(self.graph, one, other)
        if ready is None:
            return one, other
        self.graph, warning = ready
        before = self.model.prepared(self.before, one, other)
        assert before is not None
        self.before = before[0]
        self.warnings.append(warning)
        return pairing.find_spots(self.graph, source, target)

    def _tie(self, one: Spot, other: Spot, *, check: bool = False) -> None:
        pair = self._turned(one, other)
        source, target = pair.views
        value = self._value(pair)
        stored = None if value is None else _as_stored(value, source)
        graph = edits.tie(self.graph, source.variable, target.variable, pair.stored_perm, stored)
        if check:
            self.model.refuse_inexpressible(graph)
        step = Step(pair.source.variable, pair.target.variable, pair.perm, value)
        self.model.tie(step)
        self.graph = graph
        self.steps.append(step)

    def _turned(self, one: Spot, other: Spot) -> pairing.Pair:
        assert one.view is not None
        assert other.view is not None
        closer = True
        if one.view.shape == other.view.shape == one.view.shape[::-1]:
            straight, turned = (
                find.compare(one.view, other.view, perm).relative_difference
                for perm in (None, TRANSPOSED)
            )
            closer = (turned or 0.0) <= (straight or 0.0)
        return pairing.pair(one, other, is_closer_transposed=closer)

    def _value(self, pair: pairing.Pair) -> Array | None:
        """The shared matrix as the source's layer sees it, or None where both are bit-equal."""
        source, target = pair.views
        alike = find.compare(source, target, pair.perm)
        if alike.match == "equal":
            return None
        measured = (
            f"{pair.source.variable!r} and {pair.target.variable!r} differ: relative difference "
            f"{_rounded(alike.relative_difference)}, cosine {_rounded(alike.cosine)}"
        )
        if self.method is None:
            raise TieRefused(
                f"{measured}; tying them changes the model, so choose --method "
                f"{', '.join(fit.METHODS[:-1])} or {fit.METHODS[-1]}"
            )
        self.lines.append(f"method      {self.method}: {measured}")
        back = edits.inverse(pair.perm)
        other = target.load() if back is None else target.load().transpose(back)
        return fit.fit(source.load(), other, self.method)

    # --- untying ------------------------------------------------------------------------------

    def untie(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Gives names their own variables: the targets of `pairs`, or all but each first one.

        Raises TieRefused where the two names of a pair are not one variable.
        """
        named = [self._tied_spot(*pair) for pair in pairs] if pairs else _shared(self.graph)
        views = []
        for spot in named:
            assert spot.view is not None
            self.model.untie(spot.variable)
            views.append(spot.view)
            self.untied.append(spot.variable)
        self.graph = edits.untie(self.graph, views)
        self.model.refuse_inexpressible(self.graph)

    def _tied_spot(self, source: str, target: str) -> Spot:
        one, other = resolve(self.graph, source), resolve(self.graph, target)
        if one.view is None or other.view is None or not _are_shared(one.view, other.view):
            raise TieRefused(f"{source!r} and {target!r} are not tied; there is nothing to untie")
        if one.view is other.view:
            raise TieRefused(
                f"{source!r} and {target!r} are one layer that is called several times; a layer "
                "has its weights once"
            )
        return other


def _are_shared(one: View, other: View) -> bool:
    return one.variable is other.variable or one.variable.storage is other.variable.storage


def _shared(graph: Graph) -> list[Spot]:
    """Every view of each storage, and so of each variable, but the one that owns it."""
    sharing: dict[int, list[Spot]] = {}
    for path, layer in graph.walk():
        for view in layer.views:
            if view.variable.kind in ("weight", "buffer"):
                spots = sharing.setdefault(id(view.variable.storage), [])
                spots.append(Spot(path, layer, view))
    return [spot for spots in sharing.values() for spot in find.owner_first(spots)[1:]]


def _as_stored(value: Array, source: View) -> Array:
    stored = edits.inverse(source.perm)
    return np.ascontiguousarray(value if stored is None else value.transpose(stored))


def _rounded(value: float | None) -> str:
    return "not a number" if value is None else f"{value:.3g}"
