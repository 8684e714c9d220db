"""Pairs in PyTorch files without a graph: classes where the file has them, names and shapes.

A whole module tells the class of each layer, a state dict only its names. Neither tells what
flows where, so a proposal needs two signs at least, and says which.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tiesurgeon.find.proposals import MOST_VOCABULARIES, Proposal
from tiesurgeon.find.values import Perm
from tiesurgeon.graph import Shape
from tiesurgeon.names import Spot
from tiesurgeon.naming import (
    is_table_by_name,
    says_copied,
    says_head,
    says_inside,
    says_other_ids,
    says_token,
    side,
)
from tiesurgeon.orientation import TABLES, TRANSPOSED, product_matrix, table_matrix

# A feed-forward layer is mostly 4 times as high as wide; a vocabulary is larger.
_VOCABULARY = 4
_SURENESS = ("surely", "likely", "")


def by_classes_and_names(spots: Sequence[Spot]) -> Iterator[Proposal]:
    """Tables with output layers over their vocabulary, and tables with each other."""
    own = [spot for spot in spots if not says_copied(spot.variable)]
    tables = _token_tables(own) or _nameless_tables(own)
    others = [s for s in own if not _is_embedding(s) and not says_other_ids(_near(s))]
    others = [spot for spot in others if spot not in tables]
    heads = _Heads(others)
    for table in tables:
        yield from heads.of(table, tables)
    yield from _between(tables)


def _shape(spot: Spot) -> Shape:
    return spot.view.shape if spot.view is not None else ()


# --- tables -----------------------------------------------------------------------------------


def _token_tables(spots: Sequence[Spot]) -> list[Spot]:
    """Embeddings by class, or by name where it is unknown, that tokens may look up."""
    found = [spot for spot in spots if _is_embedding(spot) and not says_other_ids(_near(spot))]
    words = {(_parent(spot), _shape(spot)) for spot in found if says_token(_near(spot))}
    return [spot for spot in found if not _is_beside_words(spot, words)]


def _is_embedding(spot: Spot) -> bool:
    is_own = spot.view is not None and table_matrix(spot.layer) is spot.view
    return is_own or is_table_by_name(spot)


def _is_beside_words(spot: Spot, words: set[tuple[str, Shape]]) -> bool:
    """True for a table of unsaid purpose next to one of words: that may hold positions."""
    says_purpose = says_token(_near(spot)) or side(spot.variable)
    return not says_purpose and (_parent(spot), _shape(spot)) in words


def _nameless_tables(spots: Sequence[Spot]) -> list[Spot]:
    """What has the shape of an output layer and no bias: the `encoder.weight` of AWD-LSTM."""
    bare = [spot for spot in spots if not spot.layer.op and len(_shape(spot)) == 2]
    heads = {_shape(spot) for spot in bare if _is_output(spot)}
    return [
        spot
        for spot in bare
        if _shape(spot) in heads
        and _shape(spot)[0] > _shape(spot)[1]
        and spot.layer.view("bias") is None
        and not (says_head(spot.variable) or says_inside(_near(spot)))
        and not says_other_ids(_near(spot))
        and "embed" not in spot.variable.lower()  # of patches, of times: no table of tokens
    ]


def _is_output(spot: Spot) -> bool:
    return says_head(spot.variable) == "surely" or f".{spot.variable}".endswith(".decoder.weight")


def _between(tables: Sequence[Spot]) -> Iterator[Proposal]:
    by_shape: dict[Shape, list[Spot]] = {}
    for table in tables:
        by_shape.setdefault(_shape(table), []).append(table)
    for group in by_shape.values():
        for place, one in enumerate(group if len(group) <= MOST_VOCABULARIES else ()):
            for other in group[place + 1 :]:
                yield Proposal(one, other, None, "embedding-embedding", _reason(one, other))


# --- output layers ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Head:
    spot: Spot
    perm: Perm | None
    sureness: int


class _Heads:
    """All that could be an output layer, by its shape as a table would have it."""

    def __init__(self, spots: Sequence[Spot]) -> None:
        self._by_shape: dict[Shape, list[_Head]] = {}
        repeated = _repeated(spots)
        last = {(_parent(spot), _shape(spot)): place for place, spot in enumerate(spots)}
        for place, spot in enumerate(spots):
            is_inside = says_inside(_near(spot)) or _blank(spot) in repeated
            # A later layer beside it takes what it gives back to the width before.
            is_undone = last.get((_parent(spot), _shape(spot)[::-1]), 0) > place
            sureness = _SURENESS.index(says_head(spot.variable))
            if sureness and (is_inside or is_undone):
                continue
            for shape, perm in _as_table(spot):
                is_square = shape[0] == shape[1]
                is_bare_turned = perm is not None and not spot.layer.op
                if not ((is_square and is_inside) or (sureness and (is_square or is_bare_turned))):
                    self._by_shape.setdefault(shape, []).append(_Head(spot, perm, sureness))

    def of(self, table: Spot, tables: Sequence[Spot]) -> Iterator[Proposal]:
        """The surest of those that fit; those of the table's own half of the model first."""
        shape = _shape(table)
        found = self._by_shape.get(shape, [])
        surest = min((head.sureness for head in found), default=0)
        found = [head for head in found if head.sureness == surest]
        if surest == len(_SURENESS) - 1 and not _is_plain(shape, found):
            return
        has_decoder = any(side(t.variable) == "decoder" for t in tables if _shape(t) == shape)
        far = has_decoder and side(table.variable) != "decoder"
        for place, head in enumerate(reversed(found)):  # the output layer tends to be the last
            yield Proposal(
                table,
                head.spot,
                head.perm,
                "embedding-output",
                _reason(table, head.spot),
                (int(far), place),
            )


def _as_table(spot: Spot) -> Iterator[tuple[Shape, Perm | None]]:
    """The shapes that a table over what it gives could have, and the turn to them."""
    product, shape = product_matrix(spot.layer), _shape(spot)
    if product is not None and product.view is spot.view:
        yield (product.gives, product.takes), product.to_table
    elif len(shape) == 2 and spot.layer.op not in TABLES:
        yield shape, None
        if shape[0] != shape[1]:
            yield shape[::-1], TRANSPOSED


def _is_plain(shape: Shape, found: Sequence[_Head]) -> bool:
    """True if nameless layers may be proposed: by their class, or by a shape of its own."""
    is_product = all(product_matrix(head.spot.layer) is not None for head in found)
    return is_product or (len(found) == 1 and shape[0] > _VOCABULARY * shape[1])


def _repeated(spots: Sequence[Spot]) -> set[tuple[str, Shape]]:
    """Layers that are there more than once, with other numbers in their names."""
    paths = {(spot.path, _blank(spot)) for spot in spots}
    count = Counter(blank for _, blank in paths)
    return {blank for blank, times in count.items() if times > 1 and "." in blank[0]}


def _blank(spot: Spot) -> tuple[str, Shape]:
    return re.sub(r"\d+", "#", spot.path), _shape(spot)


# --- names ------------------------------------------------------------------------------------


def _near(spot: Spot) -> str:
    """The end of its name: what stands far above it speaks of other things too."""
    return ".".join(spot.variable.split(".")[-3:])


def _parent(spot: Spot) -> str:
    return spot.path.rpartition(".")[0]


def _reason(one: Spot, other: Spot) -> str:
    rows, width = _shape(one)
    if one.layer.op and other.layer.op:
        says = "classes and shapes say so"
        but = "how they are connected is Python code, which was not run"
    else:
        says, but = "names and shapes say so", "the file holds no graph that could confirm it"
    return f"{rows:,} rows of {width:,} numbers in both: {says}; {but}"
