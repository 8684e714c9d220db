"""Pairs that a graph's structure suggests, before any value is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tiesurgeon.find.flow import Flow
from tiesurgeon.find.projections import Projection, fed_by_input, reaches_output
from tiesurgeon.find.tables import Table, added
from tiesurgeon.find.values import Perm
from tiesurgeon.graph import Shape
from tiesurgeon.names import Spot

Role = Literal[
    "embedding-output",
    "embedding-embedding",
    "dense-dense",
    "conv-conv",
    "conv-convtranspose",
    "duplicate",
]
# Beyond, tables of one shape are categories of one size, not one vocabulary.
MOST_VOCABULARIES = 3


@dataclass(frozen=True, eq=False)
class Proposal:
    """A pair worth comparing; `distance` puts the nearer of two equally good ones first.

    `declared`: the file itself says that the target is to be the source. `copies` are
    further variables of the target's layer, which Keras wrote because it held the source.
    """

    source: Spot
    target: Spot
    perm: Perm | None
    role: Role
    reason: str
    distance: tuple[int, int] = (0, 0)
    declared: bool = False
    copies: tuple[Spot, ...] = ()


def to_outputs(
    flow: Flow, tokens: Sequence[Table], products: Sequence[Projection]
) -> Iterator[Proposal]:
    """Tables of tokens with the output layers that their lookups flow into."""
    outputs = [p for p in products if any(reaches_output(flow, use) for use in p.uses)]
    for table in tokens:
        ways = [flow.distances(lookup.index) for lookup in table.lookups]
        for output in outputs:
            product = output.product
            if (product.gives, product.takes) != table.view.shape:
                continue
            if output.view.variable is table.view.variable:
                continue  # tied already
            found = [way[use.index] for way in ways for use in output.uses if use.index in way]
            if found:
                reason = _output_reason(flow, table, output, tokens)
                spots = table.spot, output.spot
                yield Proposal(*spots, product.to_table, "embedding-output", reason, min(found))


def _output_reason(flow: Flow, table: Table, output: Projection, tokens: Sequence[Table]) -> str:
    rows, width = table.view.shape
    line = "row" if output.product.out_axis == 0 else "column"
    reason = f"what {table.spot.layer.name} looks up flows into this output layer, which has "
    reason += f"one {line} for each of its {rows:,} rows"
    if rows == width:
        reason += "; the matrix is square, so only its place in the graph says which way round"
    twins = [o for o in tokens if o is not table and o.view.shape == table.view.shape]
    if any(added(flow, table, twin) for twin in twins):
        reason += "; another table of its shape is added to it: one of the two may hold positions"
    return reason


def between_tables(flow: Flow, tokens: Sequence[Table]) -> Iterator[Proposal]:
    """Tables of one shape, as of two inputs that share a vocabulary."""
    by_shape: dict[Shape, list[Table]] = {}
    for table in tokens:
        by_shape.setdefault(table.view.shape, []).append(table)
    for shape, group in by_shape.items():
        if len(group) > MOST_VOCABULARIES:
            continue
        for place, one in enumerate(group):
            for other in group[place + 1 :]:
                if not added(flow, one, other):
                    reason = f"two tables of {shape[0]:,} rows, both looked up by tokens"
                    yield Proposal(one.spot, other.spot, None, "embedding-embedding", reason)


def mirrored(flow: Flow, products: Sequence[Projection]) -> Iterator[Proposal]:
    """Encoder and decoder layers of dense autoencoders, from the outside in.

    The outermost pair reads a model input and returns it; square layers are left out,
    since nothing but their values could tell that they belong together.
    """
    start = {id(p): p.uses[0].index for p in products}
    mates: set[int] = set()
    within: list[frozenset[int]] = []  # for each outermost pair: what lies between
    for one in products:
        wide, narrow = one.product.takes, one.product.gives
        if wide == narrow or id(one) in mates:
            continue
        after = flow.downstream(start[id(one)])
        fitting = [
            other
            for other in products
            if start[id(other)] in after
            and (other.product.takes, other.product.gives) == (narrow, wide)
            and id(other) not in mates
            and other.view.variable is not one.view.variable
        ]
        mate = next((other for other in fitting if _frames(flow, one, other)), None)
        if mate is not None:
            within.append(after & flow.upstream(start[id(mate)]))
        else:
            inside = [o for o in fitting if _inside(start[id(one)], start[id(o)], within)]
            mate = inside[-1] if inside else None
        if mate is not None:
            mates.update((id(one), id(mate)))
            reason = _mirror_reason(one, mate)
            perm = one.product.to_mirror(mate.product)
            yield Proposal(one.spot, mate.spot, perm, "dense-dense", reason)


def _inside(one: int, other: int, within: Sequence[frozenset[int]]) -> bool:
    return any(one in between and other in between for between in within)


def _frames(flow: Flow, one: Projection, other: Projection) -> bool:
    """True if `one` reads a model input and `other` gives an output of the same width."""
    fed = any(fed_by_input(flow, use) is not None for use in one.uses)
    return fed and any(reaches_output(flow, use) for use in other.uses)


def _mirror_reason(one: Projection, other: Projection) -> str:
    wide, narrow = one.product.takes, one.product.gives
    return (
        f"{one.spot.layer.name} turns {wide:,} numbers into {narrow:,}, and "
        f"{other.spot.layer.name} later turns {narrow:,} into {wide:,} again, as in an autoencoder"
    )
