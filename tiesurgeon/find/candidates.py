"""The pairs worth tying, best first: proposed by the graph, measured by their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tiesurgeon.find.alike import Twin, aliases, as_proposal, equal_twins, is_alias, kindred
from tiesurgeon.find.bare import by_names
from tiesurgeon.find.declared import declared
from tiesurgeon.find.flow import Flow, unfold
from tiesurgeon.find.mirrors import by_sizes
from tiesurgeon.find.projections import projections
from tiesurgeon.find.proposals import Proposal, Role, between_tables, mirrored, to_outputs
from tiesurgeon.find.tables import tables, token_tables
from tiesurgeon.find.unconnected import by_classes_and_names
from tiesurgeon.find.values import Comparison, Match, Perm, compare, is_floating
from tiesurgeon.graph import Graph, Layer, Storage, View
from tiesurgeon.names import Names, Spot
from tiesurgeon.orientation import is_dotted

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
    measured = [_measure(p, values=values) for p in _all_proposals(flow, spots)]
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
    found = equal_twins(matrices_of(graph))
    return tuple((names.short(pair.source), names.short(pair.target)) for pair in found)


def matrices_of(graph: Graph) -> list[Spot]:
    """Each variable of two dimensions or more once, where it is seen first and as it is stored.

    PyTorch stores a matrix in either order: one that no layer sees as stored counts as well.
    """
    found: dict[int, Spot] = {}
    for path, layer in graph.walk():
        for view in layer.views:
            if _could_be_shared(layer, view):
                first = found.setdefault(id(view.variable), Spot(path, layer, view))
                if view.perm is None and first.view is not None and first.view.perm is not None:
                    found[id(view.variable)] = Spot(path, layer, view)
    return list(found.values())


def _could_be_shared(layer: Layer, view: View) -> bool:
    """True for floating matrices that a model multiplies by or looks up.

    PyTorch keeps masks as buffers, one in each block: all equal, and nothing to tie.
    """
    kinds = ("weight",) if is_dotted(layer) else ("weight", "buffer")
    is_mask = is_dotted(layer) and ("mask" in view.role or view.role == "bias")
    is_matrix = len(view.shape) >= 2 and is_floating(view)
    return is_matrix and view.variable.kind in kinds and not is_mask


def _all_proposals(flow: Flow, spots: Sequence[Spot]) -> list[Proposal]:
    """What the structure suggests, and what sits on one storage, be it suggested or not."""
    suggested = _proposals(flow, spots)
    by_pair = {_pair(proposal): proposal for proposal in reversed(suggested)}
    shared = [
        by_pair.get(_pair(twin)) or as_proposal(flow, twin, "both see the same bytes of the file")
        for twin in aliases(spots)
    ]
    return [*shared, *(p for p in suggested if not is_alias(p.source, p.target, p.perm))]


def _proposals(flow: Flow, spots: Sequence[Spot]) -> list[Proposal]:
    if not flow.nodes and any(is_dotted(spot.layer) for spot in spots):
        return [*by_classes_and_names(spots), *by_sizes(spots)]
    if not flow.nodes:
        return list(by_names(spots))
    tokens = [t for t in token_tables(flow, tables(flow)) if is_floating(t.view)]
    products = [p for p in projections(flow) if is_floating(p.view)]
    found = list(declared(flow, tokens, products, spots))
    found += to_outputs(flow, tokens, products)
    found += between_tables(flow, tokens)
    found += mirrored(flow, products)
    return found


def _pair(found: Proposal | Twin) -> frozenset[int]:
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
    if is_alias(proposal.source, proposal.target, proposal.perm):
        return _Measured(proposal, "equal", Comparison("equal", 0.0, 1.0))
    if not values:
        return _Measured(proposal, None)
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
    if is_alias(one, two, found.proposal.perm):
        if one.layer.op or two.layer.op:
            return "; two variables on one storage, which look tied but are trained apart"
        return "; two names on one storage: whether they are one variable, the model's class says"
    if _is_twin(found.proposal):
        return "; Keras writes a layer that two nested models share twice into .h5 files"
    return ""


def _is_twin(proposal: Proposal) -> bool:
    """True for layers of one name and class in different nested models."""
    one, two = proposal.source, proposal.target
    alike = one.layer.name == two.layer.name and one.layer.op == two.layer.op
    return alike and one.path != two.path and "/" in one.path and "/" in two.path


# --- what values alone tell -------------------------------------------------------------------


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
    for twin in equal_twins(spots):
        if joined.join(*_pair(twin)):
            turned = ", transposed" if twin.perm is not None else ""
            proposal = as_proposal(flow, twin, f"the same numbers bit by bit{turned}")
            pairs.add(_pair(proposal))
            yield _Measured(proposal, "equal", Comparison("equal", 0.0, 1.0))
    for proposal in kindred(flow, spots):
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
