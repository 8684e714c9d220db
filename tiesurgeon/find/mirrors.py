"""Dense autoencoders in PyTorch files without a graph: layers whose sizes mirror each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tiesurgeon.find.proposals import Proposal
from tiesurgeon.names import Spot
from tiesurgeon.naming import is_table_by_name, says_copied, side
from tiesurgeon.orientation import Product, product_matrix

Layer = tuple[Spot, Product]


def by_sizes(spots: Sequence[Spot]) -> Iterator[Proposal]:
    """Encoder and decoder layers, where all matrices of a model are those of an autoencoder.

    Or where all are that belong to its encoder and its decoder, as names have it. The sizes
    must narrow to a middle and widen again the same way, so that no other stack of layers fits.
    """
    own = [spot for spot in spots if not says_copied(spot.variable)]
    halves = [[spot for spot in own if side(spot.path) == half] for half in ("encoder", "decoder")]
    for among in (own, [*halves[0], *halves[1]] if all(halves) else []):
        chain = _chain(among)
        if chain:
            count = len(chain)
            for number in range(count // 2):
                yield _proposal(chain[number], chain[count - 1 - number])
            return


def _chain(spots: Sequence[Spot]) -> list[Layer]:
    """The matrices as layers that follow each other and mirror; empty if they do not."""
    chain: list[Layer] = []
    for spot in spots:
        product = _product(spot)
        if product is None:
            return []
        if chain and _sizes(chain[-1][1]) == _sizes(product) and product.takes != product.gives:
            continue  # two heads side by side: the mean and the variance of a variational one
        if chain and chain[-1][1].gives != product.takes:
            return []
        chain.append((spot, product))
    sizes = [product.takes for _, product in chain] + [product.gives for _, product in chain[-1:]]
    first_half = sizes[: len(sizes) // 2 + 1]
    narrows = all(before > after for before, after in pairwise(first_half))
    return chain if sizes and sizes == sizes[::-1] and narrows else []


def _product(spot: Spot) -> Product | None:
    product = product_matrix(spot.layer)
    if product is not None and product.view is spot.view:
        return product
    is_bare = not spot.layer.op and spot.view is not None and spot.view.role == "weight"
    if spot.view is None or not is_bare or len(spot.view.shape) != 2 or is_table_by_name(spot):
        return None
    return Product(spot.view, 0)


def _sizes(product: Product) -> tuple[int, int]:
    return product.takes, product.gives


def _proposal(one: Layer, other: Layer) -> Proposal:
    wide, narrow = _sizes(one[1])
    known = "classes" if one[0].layer.op else "names"
    reason = (
        f"{one[0].path} turns {wide:,} numbers into {narrow:,} and {other[0].path} turns them "
        f"back, as in an autoencoder: {known} and shapes say so, no graph confirms it"
    )
    return Proposal(one[0], other[0], one[1].to_mirror(other[1]), "dense-dense", reason)
