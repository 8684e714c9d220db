"""Pairs in a file of weights alone: no graph, so names and shapes must do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tiesurgeon.find.proposals import Proposal
from tiesurgeon.find.values import is_floating
from tiesurgeon.names import Spot
from tiesurgeon.naming import says_other_ids
from tiesurgeon.orientation import TRANSPOSED

_TABLE = re.compile(r"embed|(?:^|/)emb(?:$|[^a-z])|wte")
_RECURRENT = re.compile(r"recurrent|lstm|gru|rnn|cell")
_CAVEAT = "names and shapes say so; the file holds no graph that could confirm it"


def by_names(spots: Sequence[Spot]) -> Iterator[Proposal]:
    """Tables with the kernels of the transposed shape, and with each other."""
    named = [spot for spot in spots if spot.view is not None and is_floating(spot.view)]
    tables = [spot for spot in named if _is_table(spot)]
    for place, table in enumerate(tables):
        shape = _shape(table)
        for spot in named:
            if shape[0] != shape[1] and _shape(spot) == shape[::-1] and _is_kernel(spot, named):
                yield Proposal(table, spot, TRANSPOSED, "embedding-output", _CAVEAT)
        for other in tables[place + 1 :]:
            if _shape(other) == shape:
                yield Proposal(table, other, None, "embedding-embedding", _CAVEAT)


def _shape(spot: Spot) -> tuple[int, ...]:
    return spot.view.shape if spot.view is not None else ()


def _is_table(spot: Spot) -> bool:
    name = spot.variable.lower()
    return len(_shape(spot)) == 2 and bool(_TABLE.search(name)) and not says_other_ids(name)


def _is_kernel(spot: Spot, named: Sequence[Spot]) -> bool:
    """A matrix that is no table and no part of a recurrent layer."""
    name = spot.variable.lower()
    beside = [other.variable.lower() for other in named if other.path == spot.path]
    is_recurrent = any(_RECURRENT.search(other) for other in beside)
    return len(_shape(spot)) == 2 and not is_recurrent and not _TABLE.search(name)
