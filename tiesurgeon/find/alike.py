"""Matrices that are the same, whatever the graph says: by their storage, or by their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tiesurgeon.edits import compose, inverse
from tiesurgeon.find.flow import Flow
from tiesurgeon.find.proposals import Proposal
from tiesurgeon.find.roles import is_table, role_in
from tiesurgeon.find.values import Perm, alike_pairs, equal_pairs
from tiesurgeon.graph import View
from tiesurgeon.names import Spot


@dataclass(frozen=True)
class Twin:
    """Two variables of the same bits, the second as it is or transposed by `perm`."""

    source: Spot
    target: Spot
    perm: Perm | None


def aliases(spots: Sequence[Spot]) -> Iterator[Twin]:
    """Variables that sit on one storage, the table (or the first) with each other one."""
    by_storage: dict[int, list[Spot]] = {}
    for spot in _owners_first(spots):
        if spot.view is not None:
            by_storage.setdefault(id(spot.view.variable.storage), []).append(spot)
    for first, *others in by_storage.values():
        for other in others:
            assert first.view is not None
            assert other.view is not None
            perm = turn_between(first.view, other.view)
            if is_alias(first, other, perm):
                yield Twin(first, other, perm)


def is_alias(source: Spot, target: Spot, perm: Perm | None) -> bool:
    """True if both see one storage, the target transposed by `perm` the same as the source."""
    one, two = source.view, target.view
    if one is None or two is None or one.variable.storage is not two.variable.storage:
        return False
    return one.reshape == two.reshape and turn_between(one, two) == perm


def turn_between(one: View, two: View) -> Perm | None:
    """The transpose that makes of what the second sees what the first sees."""
    return compose(inverse(two.perm), one.perm)


def equal_twins(spots: Sequence[Spot]) -> Iterator[Twin]:
    """All bit-equal pairs; of several equal ones, the owner with each other."""
    owners = _owners_first(spots)
    views = [spot.view for spot in owners if spot.view is not None]
    for first, second, perm in equal_pairs(views):
        yield Twin(owners[first], owners[second], perm)


def _owners_first(spots: Sequence[Spot]) -> list[Spot]:
    return sorted((spot for spot in spots if spot.view is not None), key=lambda s: not is_table(s))


def as_proposal(flow: Flow, found: Twin, reason: str) -> Proposal:
    """The pair as one that the graph might have suggested."""
    role = role_in(flow, found.source, found.target, found.perm)
    return Proposal(found.source, found.target, found.perm, role, reason)


def kindred(flow: Flow, spots: Sequence[Spot]) -> Iterator[Proposal]:
    """Pairs of layers of one kind whose samples are alike."""
    views = [spot.view for spot in spots if spot.view is not None]
    for first, second, perm in alike_pairs(views):
        one, two = spots[first], spots[second]
        role = role_in(flow, one, two, perm)
        if role != "duplicate":
            reason = "nearly the same numbers, as after rounding"
            yield Proposal(one, two, perm, role, reason)
