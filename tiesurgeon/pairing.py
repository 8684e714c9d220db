"""From the two names a user types to what is to be tied: which owns the matrix, which way round."""

from __future__ import annotations

from dataclasses import dataclass

from tiesurgeon.edits import Perm, compose, inverse
from tiesurgeon.errors import ShapeMismatch, TieRefused
from tiesurgeon.graph import Graph, Shape, View
from tiesurgeon.names import Spot, resolve
from tiesurgeon.naming import is_head_by_name, is_table_by_name, side
from tiesurgeon.orientation import TABLES, TRANSPOSED, is_dotted, product_matrix, table_matrix


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


def _rank(graph: Graph, spot: Spot) -> tuple[bool, bool, bool, int]:
    """Embeddings own the matrix before others, earlier layers before later ones.

    A set of weights may list its layers by the alphabet, the decoder first.
    """
    order = {path: number for number, (path, _) in enumerate(graph.walk())}
    is_later = is_dotted(spot.layer) and side(spot.path) == "decoder"
    return spot.view is None, not _is_table(spot), is_later, order.get(spot.path, 0)


def pair(source: Spot, target: Spot, *, is_closer_transposed: bool = True) -> Pair:
    """The pair, turned the way in which the two fit.

    A square matrix fits both ways: then what the two layers do decides (an embedding and a
    Keras projection are each other's transpose, an embedding and a PyTorch Linear are not),
    and where that is not known, `is_closer_transposed`. Raises ShapeMismatch naming both
    shapes, TieRefused where they are one already.
    """
    one, other = _shape(source), _shape(target)
    assert source.view is not None
    assert target.view is not None
    if source.view.variable is target.view.variable:
        raise TieRefused(f"{source.path!r} and {target.path!r} are one variable already")
    _same_kind(source, target)
    ways = _ways(source, target)
    fitting = [perm for perm in ways if _turned(one, perm) == other]
    if not fitting:
        raise ShapeMismatch(_misfit(source, target, _turned(one, ways[0])))
    if len(fitting) == 1 or _is_bare_head(source, target):
        return Pair(source, target, fitting[0])
    return Pair(source, target, TRANSPOSED if is_closer_transposed else None)


def _ways(source: Spot, target: Spot) -> tuple[Perm | None, ...]:
    """The ways round that what the two layers do allows, the likelier first."""
    tables = _is_table(source), _is_table(target)
    if all(tables):
        return (None,)
    if not any(tables):
        return (None, TRANSPOSED)
    other = target if tables[0] else source
    product = product_matrix(other.layer)
    if product is not None and product.view is other.view:
        return (product.to_table,)
    return (None, TRANSPOSED) if is_dotted(other.layer) else (TRANSPOSED,)


def _is_table(spot: Spot) -> bool:
    if spot.layer.op in TABLES and not is_dotted(spot.layer):
        return True
    is_own = spot.view is not None and table_matrix(spot.layer) is spot.view
    return is_own or is_table_by_name(spot)


def _is_bare_head(source: Spot, target: Spot) -> bool:
    """True for an embedding and an output layer of which only the names say what they are."""
    return _is_table(source) and is_head_by_name(target)


def _shape(spot: Spot) -> Shape:
    return () if spot.view is None else spot.view.shape


def _turned(shape: Shape, perm: Perm | None) -> Shape | None:
    """The shape transposed; None if it has not the axes for that."""
    if perm is None:
        return shape
    return tuple(shape[axis] for axis in perm) if len(shape) == len(perm) else None


def _misfit(source: Spot, target: Spot, expected: Shape | None) -> str:
    one, other = _shape(source), _shape(target)
    text = (
        f"{source.variable!r} has shape {one} and {target.variable!r} has shape {other}, "
        f"expected {expected or one}"
    )
    rows = _vocabulary(source, target)
    if rows is not None:
        text += (
            f"; the vocabularies differ ({one[0]} and {rows}): one side is padded, "
            "cut it to the other's length first"
        )
    return text


def _vocabulary(source: Spot, target: Spot) -> int | None:
    """How many rows the target has for the source's, if it is as wide as that table."""
    product = product_matrix(target.layer)
    if product is not None and product.view is target.view:
        width, rows = product.takes, product.gives
    elif len(_shape(target)) == 2 and (_is_table(target) or is_head_by_name(target)):
        rows, width = _shape(target)
    else:
        return None
    return rows if _is_table(source) and width == _shape(source)[-1] else None


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
