"""What several files have in common; there only equal bits can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tiesurgeon.find.candidates import Candidate, matrices_of
from tiesurgeon.find.roles import role_by_kind
from tiesurgeon.find.values import equal_pairs
from tiesurgeon.graph import Graph
from tiesurgeon.names import Names


@dataclass(frozen=True)
class Held:
    """A model with the name that stands before the colon in `a:embedding`."""

    stem: str
    graph: Graph


def equal_across(models: Sequence[Held]) -> tuple[Candidate, ...]:
    """Matrices that are equal bit by bit in different files, largest first."""
    names = [Names(model.graph) for model in models]
    owned = [(n, spot) for n, model in enumerate(models) for spot in matrices_of(model.graph)]
    owned = [(n, spot) for n, spot in owned if spot.view is not None]
    found: list[Candidate] = []
    for i, j, perm in equal_pairs([spot.view for _, spot in owned if spot.view is not None]):
        (first, one), (second, two) = owned[i], owned[j]
        if first == second or two.view is None:
            continue
        found.append(
            Candidate(
                f"{models[first].stem}:{names[first].short(one)}",
                f"{models[second].stem}:{names[second].short(two)}",
                perm,
                role_by_kind(one, two, perm),
                "equal",
                0.0,
                1.0,
                two.view.variable.storage.nbytes,
                "the same numbers bit by bit in two files",
            )
        )
    return tuple(sorted(found, key=lambda candidate: -candidate.saves_bytes))
