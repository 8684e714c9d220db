"""The pairs worth tying, best first: proposed by the graph, measured by their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tiesurgeon.find.bare import by_names
from tiesurgeon.find.declared import declared
from tiesurgeon.find.flow import Flow, unfold
from tiesurgeon.find.projections import product_matrix, projections
from tiesurgeon.find.proposals import (
    TRANSPOSED,
    Proposal,
    Role,
    between_tables,
    mirrored,
    to_outputs,
)
from tiesurgeon.find.tables import TABLES, tables, token_tables
from tiesurgeon.find.values import (
    Comparison,
    Match,
    Perm,
    alike_pairs,
    compare,
    equal_pairs,
    is_floating,
)
from tiesurgeon.graph import Graph, Storage
from tiesurgeon.names import Names, Spot

_MATCHES: tuple[Match | None, ...] = ("equal", "declared", "close", "different", None)
_ROLES: tuple[Role, ...] = (
    "embedding-output",
    "embedding-embedding",
    "dense-dense",
    "conv-conv",
    "conv-convtranspose",
    "duplicate",
)


@dataclass(frozen=True)
class Candidate:
    """A pair that could be one variable; `source` and `target` are names to type.

    `perm` turns the target into the source's orientation. `match` is None where values
    were not read. `saves_bytes` is what the file holds twice now.
    """

    source: str
    target: str
    perm: Perm | None
    role: Role
    match: Match | None
    relative_difference: float | None
    cosine: float | None
    saves_bytes: int
    reason: str


def candidates(graph: Graph, *, values: bool = True) -> tuple[Candidate, ...]:
    """All pairs worth tying, best first; without `values` no weight is read."""
    flow = unfold(graph)
    spots = matrices_of(graph)
    measured = [_measure(p, values=values) for p in _proposals(flow, spots)]
    if values:
        measured += _found_alike(flow, spots, measured)
    best: dict[frozenset[int], _Measured] = {}
    for found in sorted(measured, key=_rank):
        best.setdefault(_pair(found.proposal), found)
    names = Names(graph)
    return tuple(_candidate(found, names) for found in best.values())


def duplicates(graph: Graph) -> tuple[tuple[str, str], ...]:
    """Names of all bit-equal pairs; of several equal ones, the owner with each other.

    Floating matrices only, as they are or transposed, and none of which all numbers are one.
    """
    names = Names(graph)
    found = _duplicates(matrices_of(graph))
    return tuple((names.short(pair.source), names.short(pair.target)) for pair in found)


def matrices_of(graph: Graph) -> list[Spot]:
    """Each variable of two dimensions or more once, where it is seen first."""
    found: dict[int, Spot] = {}
    for path, layer in graph.walk():
        for view in layer.views:
            kept = view.variable.kind in ("weight", "buffer") and len(view.shape) >= 2
            if kept and view.perm is None and is_floating(view):
                found.setdefault(id(view.variable), Spot(path, layer, view))
    return list(found.values())


def _proposals(flow: Flow, spots: Sequence[Spot]) -> list[Proposal]:
    if not flow.nodes:
        return list(by_names(spots))
    tokens = [t for t in token_tables(flow, tables(flow)) if is_floating(t.view)]
    products = [p for p in projections(flow) if is_floating(p.view)]
    found = list(declared(flow, tokens, products, spots))
    found += to_outputs(flow, tokens, products)
    found += between_tables(flow, tokens)
    found += mirrored(flow, products)
    return found


def _pair(found: Proposal | _Duplicate) -> frozenset[int]:
    return frozenset((_identity(found.source), _identity(found.target)))


def _identity(spot: Spot) -> int:
    return id(spot.layer) if spot.view is None else id(spot.view.variable)


@dataclass(frozen=True, eq=False)
class _Measured:
    proposal: Proposal
    match: Match | None
    comparison: Comparison | None = None


def _measure(proposal: Proposal, *, values: bool) -> _Measured:
    one, two = proposal.source.view, proposal.target.view
    if one is None or two is None:
        return _Measured(proposal, "declared")
    if not values:
        return _Measured(proposal, None)
    if one.variable.storage is two.variable.storage and proposal.perm is None:
        return _Measured(proposal, "equal", Comparison("equal", 0.0, 1.0))
    comparison = compare(one, two, proposal.perm)
    return _Measured(proposal, comparison.match, comparison)


def _rank(found: _Measured) -> tuple[int, int, int, tuple[int, int]]:
    proposal = found.proposal
    place = _MATCHES.index(found.match), _ROLES.index(proposal.role)
    return (*place, -_saved(proposal), proposal.distance)


def _saved(proposal: Proposal) -> int:
    freed = [_storage(spot) for spot in (proposal.target, *proposal.copies)]
    kept = _storage(proposal.source)
    return sum(s.nbytes for s in freed if s is not None and s is not kept)


def _storage(spot: Spot) -> Storage | None:
    return None if spot.view is None else spot.view.variable.storage


def _candidate(found: _Measured, names: Names) -> Candidate:
    proposal, comparison = found.proposal, found.comparison
    return Candidate(
        names.short(proposal.source),
        names.short(proposal.target),
        proposal.perm,
        proposal.role,
        found.match,
        comparison.relative_difference if comparison else None,
        comparison.cosine if comparison else None,
        _saved(proposal),
        proposal.reason + _why_equal(found),
    )


def _why_equal(found: _Measured) -> str:
    one, two = found.proposal.source, found.proposal.target
    if found.match != "equal":
        return ""
    if _storage(one) is _storage(two):
        return "; two variables on one storage, which look tied but are trained apart"
    if _is_twin(found.proposal):
        return "; Keras writes a layer that two nested models share twice into .h5 files"
    return ""


def _is_twin(proposal: Proposal) -> bool:
    """True for layers of one name and class in different nested models."""
    one, two = proposal.source, proposal.target
    alike = one.layer.name == two.layer.name and one.layer.op == two.layer.op
    return alike and one.path != two.path and "/" in one.path and "/" in two.path


# --- what values alone tell -------------------------------------------------------------------


@dataclass(frozen=True)
class _Duplicate:
    """Two variables of the same bits, as they are or transposed by `perm`."""

    source: Spot
    target: Spot
    perm: Perm | None


def _duplicates(spots: Sequence[Spot]) -> Iterator[_Duplicate]:
    owners = sorted(spots, key=lambda spot: spot.layer.op not in TABLES)
    views = [spot.view for spot in owners if spot.view is not None]
    for first, second, perm in equal_pairs(views):
        yield _Duplicate(owners[first], owners[second], perm)


def _found_alike(
    flow: Flow, spots: Sequence[Spot], known: Sequence[_Measured]
) -> Iterator[_Measured]:
    """Equal pairs that the graph did not suggest, and close ones of layers of one kind."""
    joined = _Joined()
    for found in known:
        if found.match == "equal":
            joined.join(*_pair(found.proposal))
    pairs = {_pair(found.proposal) for found in known if found.match in ("equal", "close")}
    copies = {_identity(spot) for found in known for spot in found.proposal.copies}
    spots = [spot for spot in spots if _identity(spot) not in copies]
    for duplicate in _duplicates(spots):
        if joined.join(*_pair(duplicate)):
            proposal = _equal_proposal(flow, duplicate)
            pairs.add(_pair(proposal))
            yield _Measured(proposal, "equal", Comparison("equal", 0.0, 1.0))
    for proposal in _kindred(flow, spots):
        if _pair(proposal) not in pairs:
            measured = _measure(proposal, values=True)
            if measured.match == "close":
                yield measured


class _Joined:
    """Which variables are known to be equal, so that three make two pairs, not three."""

    def __init__(self) -> None:
        self._roots: dict[int, int] = {}

    def join(self, one: int, other: int) -> bool:
        """Joins two; False if they were together already."""
        one, other = self._root(one), self._root(other)
        self._roots[one] = other
        return one != other

    def _root(self, at: int) -> int:
        while self._roots.setdefault(at, at) != at:
            at = self._roots[at]
        return at


def _equal_proposal(flow: Flow, found: _Duplicate) -> Proposal:
    one, two = found.source, found.target
    role = _role(flow, one, two, found.perm)
    reason = "the same numbers bit by bit"
    if found.perm is not None:
        reason += ", transposed"
    return Proposal(one, two, found.perm, role, reason)


def _kindred(flow: Flow, spots: Sequence[Spot]) -> Iterator[Proposal]:
    """Pairs of layers of one kind whose samples are alike."""
    views = [spot.view for spot in spots if spot.view is not None]
    for first, second, perm in alike_pairs(views):
        one, two = spots[first], spots[second]
        role = _role(flow, one, two, perm)
        if role != "duplicate":
            yield Proposal(one, two, perm, role, "nearly the same numbers, as after rounding")


def _role(flow: Flow, one: Spot, two: Spot, perm: Perm | None) -> Role:
    if _is_product(one) and _is_product(two) and perm == TRANSPOSED and _follows(flow, one, two):
        return "dense-dense"
    return role_by_kind(one, two, perm)


def role_by_kind(one: Spot, two: Spot, perm: Perm | None) -> Role:
    """The role that the classes of two layers tell, where no graph connects them."""
    if one.layer.op in TABLES and two.layer.op in TABLES and perm is None:
        return "embedding-embedding"
    if perm is None and _is_convolution(one) and _is_convolution(two):
        both = ("Transpose" in one.layer.op) == ("Transpose" in two.layer.op)
        return "conv-conv" if both else "conv-convtranspose"
    return "duplicate"


def _is_product(spot: Spot) -> bool:
    return product_matrix(spot.layer) is spot.view


def _is_convolution(spot: Spot) -> bool:
    op, view = spot.layer.op, spot.view
    return op.startswith("Conv") and "LSTM" not in op and view is not None and view.role == "kernel"


def _follows(flow: Flow, one: Spot, two: Spot) -> bool:
    """True if the second layer is downstream of the first."""
    ends = {node.index for node in flow.nodes if node.path == two.path}
    starts = (node.index for node in flow.nodes if node.path == one.path)
    return any(ends & flow.downstream(start) for start in starts)
