"""From the two names a user types to what is to be tied: which owns the matrix, which way round."""

from __future__ import annotations

from dataclasses import dataclass

from tiesurgeon.edits import Perm, compose, inverse
from tiesurgeon.errors import ShapeMismatch, TieRefused
from tiesurgeon.graph import Graph, View
from tiesurgeon.names import Spot, resolve

TRANSPOSED = (1, 0)
_TABLES = frozenset({"Embedding", "ReversibleEmbedding"})


@dataclass(frozen=True)
class Pair:
    """`target` is to become `source.transpose(perm)`, both as their layers see them."""

    source: Spot
    target: Spot
    perm: Perm | None

    @property
    def views(self) -> tuple[View, View]:
        """Source and target; both hold a matrix by now."""
        assert self.source.view is not None
        assert self.target.view is not None
        return self.source.view, self.target.view

    @property
    def stored_perm(self) -> Perm | None:
        """The same for the variables as stored, whatever views they are seen through."""
        source, target = self.views
        return compose(compose(source.perm, self.perm), inverse(target.perm))


def find_spots(graph: Graph, source: str, target: str) -> tuple[Spot, Spot]:
    """The two named places, the one that owns the matrix first."""
    one, other = resolve(graph, source), resolve(graph, target)
    if one.view is None and other.view is None:
        raise TieRefused(f"neither {source!r} nor {target!r} holds a matrix that could be shared")
    if _rank(graph, other) < _rank(graph, one):
        one, other = other, one
    return one, other


def _rank(graph: Graph, spot: Spot) -> tuple[int, int, int]:
    """Embeddings own the matrix before others, earlier layers before later ones."""
    order = {path: number for number, (path, _) in enumerate(graph.walk())}
    has_none = spot.view is None
    return int(has_none), int(spot.layer.op not in _TABLES), order.get(spot.path, 0)


def pair(source: Spot, target: Spot, *, is_closer_transposed: bool = True) -> Pair:
    """The pair, turned the way in which the two fit.

    A square matrix fits both ways: an embedding and a projection are each other's transpose,
    two layers of one class the same way round; elsewhere `is_closer_transposed` decides.
    Raises ShapeMismatch naming both shapes, TieRefused where they are one already.
    """
    assert source.view is not None
    assert target.view is not None
    one, other = source.view.shape, target.view.shape
    if source.view.variable is target.view.variable:
        raise TieRefused(f"{source.path!r} and {target.path!r} are one variable already")
    _same_kind(source, target)
    kinds = {source.layer.op in _TABLES, target.layer.op in _TABLES}
    straight = one == other
    turned = len(one) == 2 and one[::-1] == other
    if kinds == {True, False}:
        straight = False
    elif kinds == {True}:
        turned = False
    elif straight and turned:
        straight, turned = not is_closer_transposed, is_closer_transposed
    if turned:
        return Pair(source, target, TRANSPOSED)
    if straight:
        return Pair(source, target, None)
    raise ShapeMismatch(_misfit(source, target, one, other, kinds))


def _misfit(
    source: Spot, target: Spot, one: tuple[int, ...], other: tuple[int, ...], kinds: set[bool]
) -> str:
    expected = one[::-1] if kinds == {True, False} else one
    text = (
        f"{source.variable!r} has shape {one} and {target.variable!r} has shape {other}, "
        f"expected {expected}"
    )
    is_projection = kinds == {True, False} and target.layer.op == "Dense"
    if len(one) == len(other) == 2 and one[1] in other and is_projection:
        vocabulary = next((dim for dim in other if dim != one[1]), other[0])
        text += (
            f"; the vocabularies differ ({one[0]} and {vocabulary}): one side is padded, "
            "cut it to the other's length first"
        )
    return text


def _same_kind(source: Spot, target: Spot) -> None:
    assert source.view is not None
    assert target.view is not None
    one, other = source.view.variable.storage.dtype, target.view.variable.storage.dtype
    if one != other:
        raise TieRefused(
            f"{source.variable!r} is {one} and {target.variable!r} is {other}; one variable has "
            "one dtype, so convert one of them first"
        )
    if source.view.variable.trainable != target.view.variable.trainable:
        frozen = source if not source.view.variable.trainable else target
        raise TieRefused(
            f"{frozen.variable!r} is frozen and the other side is not: one variable is either "
            "trained or not, so freeze or unfreeze both first"
        )
