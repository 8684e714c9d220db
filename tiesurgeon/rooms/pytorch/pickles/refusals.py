"""Ties that would change a PyTorch model in silence, or that a pickle cannot say."""

from __future__ import annotations

from collections.abc import Iterator

from tiesurgeon.edits import Perm
from tiesurgeon.errors import TieRefused
from tiesurgeon.rooms.pytorch.pickles.content import Spot

_EMBEDDINGS = ("Embedding", "EmbeddingBag")


def refuse_unfit(source: Spot, target: Spot, perm: Perm | None) -> None:
    """TieRefused, with the reason, for two places that cannot be one tensor."""
    for spot in (source, target):
        refuse_odd(spot)
    one, other = source.place.tensor, target.place.tensor
    kinds = source.place.kind or "weight", target.place.kind or "weight"
    if kinds[0] != kinds[1]:
        names = {kinds[0]: source.name, kinds[1]: target.name}
        raise TieRefused(f"{names['buffer']} is a buffer and {names['weight']} is a parameter")
    if one.layout.dtype != other.layout.dtype:
        raise TieRefused(
            f"{source.name} is {one.layout.dtype.name} and {target.name} is "
            f"{other.layout.dtype.name}; one tensor has one dtype"
        )
    if one.storage.device != other.storage.device:
        raise TieRefused(
            f"{source.name} was on {one.storage.device} and {target.name} on "
            f"{other.storage.device}; move the model to one device and save it again"
        )
    seen, wanted = _shape(source, perm), _shape(target, None)
    if seen != wanted:
        raise TieRefused(f"{source.name} would be seen as {seen} and {target.name} is {wanted}")
    limits = [_limit(spot) for spot in (source, target)]
    if limits[0] != limits[1]:
        limited = source if limits[0] is not None else target
        raise TieRefused(
            f"{limited.part.name} ({limited.part.op}) has max_norm, so every look-up rescales rows "
            "in place, and with them the other layer's; a tie would change the model"
        )


def words_on(source: Spot, target: Spot) -> Iterator[str]:
    """What a tie changes in training, though not in outputs."""
    pads = [spot.part.config.get("padding_idx") for spot in (source, target)]
    for spot, pad, other in ((source, *pads), (target, *reversed(pads))):
        if spot.part.op not in _EMBEDDINGS:
            continue
        if pad is not None and pad != other:
            by = target if spot is source else source
            yield (
                f"row {pad} of {spot.name} is padding_idx, which look-ups do not train; "
                f"{by.part.name} ({by.part.op}) now trains it"
            )
        if spot.part.config.get("sparse"):
            yield (
                f"{spot.part.name} has sparse=True: the sum of its sparse gradient and the other "
                "layer's dense one is dense, which SparseAdam refuses"
            )


def refuse_odd(spot: Spot) -> None:
    """TieRefused for what is no weight of its own."""
    if spot.where.kind == "optimizer":
        raise TieRefused(f"{spot.name} is the state of an optimizer, not a weight")
    if type(spot.place.holder) is tuple:
        raise TieRefused(f"{spot.name} lies in a tuple, which is no set of weights")
    if spot.place.tensor.is_quantised:
        raise TieRefused(
            f"{spot.name} is quantised, and its layer has packed numbers of its own; tie the "
            "model before it is quantised"
        )


def _limit(spot: Spot) -> object:
    if spot.part.op not in _EMBEDDINGS or spot.part.config.get("max_norm") is None:
        return None
    return spot.part.config["max_norm"], spot.part.config.get("norm_type")


def _shape(spot: Spot, perm: Perm | None) -> tuple[int, ...] | None:
    shape = spot.place.tensor.layout.shape
    for turn in (spot.place.perm, perm):
        if turn is not None:
            if len(turn) != len(shape):
                return None
            shape = tuple(shape[axis] for axis in turn)
    return shape
