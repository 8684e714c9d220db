"""Which embedding tables are looked up by tokens, and which by positions or segments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tiesurgeon.find.flow import Flow, Node
from tiesurgeon.graph import View
from tiesurgeon.names import Spot
from tiesurgeon.naming import says_other_ids, says_position, says_segment, says_token
from tiesurgeon.orientation import table_matrix

# What these make of ids does not depend on which ids they are.
_MAKES_POSITIONS = frozenset(
    "Arange Range Cumsum OnesLike ZerosLike Ones Zeros Full FullLike Shape Size Linspace "
    "CumSum ConstantOfShape NonZero".split()
)

# Between a lookup and the sum that it goes into.
_BEFORE_SUM = frozenset(
    "Dropout SpatialDropout1D GaussianNoise GaussianDropout "
    "LayerNormalization RMSNormalization LayerNorm RMSNorm "
    "Activation Masking Reshape Cast Rescaling Multiply Identity ActivityRegularization "
    "ExpandDims BroadcastTo StopGradient Mul Unsqueeze DequantizeLinear".split()
)
SUMS = frozenset({"Add"})


@dataclass(frozen=True, eq=False)
class Table:
    """An embedding matrix of shape (V, H) with the nodes that look it up."""

    spot: Spot
    view: View
    lookups: tuple[Node, ...]


def tables(flow: Flow) -> list[Table]:
    """Every embedding table once, in order of first use."""
    found: dict[int, list[tuple[Node, View]]] = {}
    for node in flow.nodes:
        view = table_matrix(node.layer)
        if view is not None:
            found.setdefault(id(view.variable), []).append((node, view))
    return [
        Table(Spot(uses[0][0].path, uses[0][0].layer, uses[0][1]), uses[0][1], nodes)
        for uses in found.values()
        for nodes in [tuple(node for node, _ in uses)]
    ]


def token_tables(flow: Flow, found: list[Table]) -> list[Table]:
    """Those looked up by tokens: neither by position nor added to a table of tokens."""
    likely = [table for table in found if _by_ids(flow, table)]
    return [
        table
        for table in likely
        if not any(_outranks(flow, other, table) for other in _added(flow, table, likely))
    ]


def added(flow: Flow, one: Table, other: Table) -> bool:
    """True if what the two tables give is summed, as tokens and positions are."""
    sums = {at for node in one.lookups for at in _sums(flow, node)}
    return any(at in sums for node in other.lookups for at in _sums(flow, node))


def _added(flow: Flow, table: Table, among: list[Table]) -> Iterator[Table]:
    return (other for other in among if other is not table and added(flow, table, other))


def _by_ids(flow: Flow, table: Table) -> bool:
    separator = table.spot.layer.separator
    if says_other_ids(separator.join(table.spot.path.split(separator)[-2:])):
        return False
    return any(_reads_ids(flow, node) is not None for node in table.lookups)


def _reads_ids(flow: Flow, lookup: Node) -> int | None:
    """How many steps lie between the lookup and an input of tokens; None if it has none."""
    pending, seen = [(at, 0) for at in lookup.before], set(lookup.before)
    while pending:
        at, steps = pending.pop(0)
        node = flow.nodes[at]
        called = f"{node.layer.op} {node.layer.name}".lower()
        if node.layer.op in _MAKES_POSITIONS or says_position(called):
            continue
        if node.layer.op == "InputLayer":
            if not says_segment(called):
                return steps
            continue
        before = [other for other in node.before if other not in seen]
        seen.update(before)
        pending += [(other, steps + 1) for other in before]
    return None


def _outranks(flow: Flow, one: Table, other: Table) -> bool:
    """Of two tables that are summed: True if `one` is that of the tokens, so `other` is not."""
    return _tokenness(flow, one) > _tokenness(flow, other)


def _tokenness(flow: Flow, table: Table) -> tuple[int, int, bool]:
    steps = [s for node in table.lookups for s in [_reads_ids(flow, node)] if s is not None]
    inputs = (flow.nodes[at].layer.name for node in table.lookups for at in node.before)
    called = " ".join([table.spot.path, *inputs]).lower()
    return table.view.shape[0], -min(steps, default=99), says_token(called)


def _sums(flow: Flow, lookup: Node) -> set[int]:
    """The sums that a lookup goes into before anything is computed from it."""
    found: set[int] = set()
    pending = [lookup.index]
    while pending:
        for after in flow.after(pending.pop()):
            op = flow.nodes[after].layer.op
            if op in SUMS and after not in found:
                found.add(after)
                pending.append(after)  # x + y + z is two sums
            elif op in _BEFORE_SUM and len(flow.nodes[after].before) == 1:
                pending.append(after)
    return found
