"""What two matrices would be to each other, from the classes of their layers and their place."""

from __future__ import annotations

from tiesurgeon.find.flow import Flow
from tiesurgeon.find.proposals import Role
from tiesurgeon.find.values import Perm
from tiesurgeon.names import Spot
from tiesurgeon.naming import is_head_by_name, is_table_by_name
from tiesurgeon.orientation import (
    TRANSPOSED,
    Product,
    is_convolution,
    is_dotted,
    product_matrix,
    table_matrix,
)


def role_in(flow: Flow, one: Spot, two: Spot, perm: Perm | None) -> Role:
    """The role of two matrices of one model of which the second equals the first."""
    if _product(one) and _product(two) and perm == TRANSPOSED and _follows(flow, one, two):
        return "dense-dense"
    return role_by_kind(one, two, perm)


def role_by_kind(one: Spot, two: Spot, perm: Perm | None) -> Role:
    """The role that the classes of two layers tell, where no graph connects them.

    A state dict has no classes; there the names tell what is an embedding.
    """
    if is_table(one) and is_table(two) and perm is None:
        return "embedding-embedding"
    if is_dotted(one.layer) and is_table(one) and _gives_rows(two, perm):
        return "embedding-output"
    kernels = [s.view for s in (one, two) if s.view is not None and is_convolution(s.layer, s.view)]
    if perm is None and len(kernels) == 2:
        both = ("Transpose" in one.layer.op) == ("Transpose" in two.layer.op)
        return "conv-conv" if both else "conv-convtranspose"
    return "duplicate"


def is_table(spot: Spot) -> bool:
    """True for the matrix of an embedding."""
    is_own = spot.view is not None and table_matrix(spot.layer) is spot.view
    return is_own or (is_dotted(spot.layer) and is_table_by_name(spot))


def _gives_rows(spot: Spot, perm: Perm | None) -> bool:
    """True for an output layer that lies as a table transposed by `perm`."""
    product = _product(spot)
    if product is not None:
        return product.to_table == perm
    return perm is None and is_head_by_name(spot)


def _product(spot: Spot) -> Product | None:
    product = product_matrix(spot.layer)
    return product if product is not None and product.view is spot.view else None


def _follows(flow: Flow, one: Spot, two: Spot) -> bool:
    """True if the second layer is downstream of the first; as listed where there is no graph."""
    if not flow.nodes:
        return is_dotted(one.layer)
    ends = {node.index for node in flow.nodes if node.path == two.path}
    starts = (node.index for node in flow.nodes if node.path == one.path)
    return any(ends & flow.downstream(start) for start in starts)
