"""Shape rules that several families share; None is a size that is not known."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tiesurgeon.mapping.building import Dims


def broadcast(shapes: Sequence[Dims]) -> Dims:
    """The common shape; shapes of lower rank are padded after the batch, as Keras does."""
    rank = max(len(shape) for shape in shapes)
    padded = [(*shape[:1], *(1,) * (rank - len(shape)), *shape[1:]) for shape in shapes]
    return tuple(_common(sizes) for sizes in zip(*padded, strict=True))


def numpy_broadcast(shapes: Sequence[Dims]) -> Dims:
    """The common shape by numpy's rule; shapes of lower rank are padded in front."""
    rank = max(len(shape) for shape in shapes)
    padded = [(*(1,) * (rank - len(shape)), *shape) for shape in shapes]
    return tuple(_common(sizes) for sizes in zip(*padded, strict=True))


def _common(sizes: tuple[int | None, ...]) -> int | None:
    larger = [size for size in sizes if size != 1]
    if not larger:
        return 1
    return next((size for size in larger if size is not None), None)


def window(size: int | None, kernel: int, stride: int, dilation: int, padding: str) -> int | None:
    """How many windows fit along an axis."""
    if size is None:
        return None
    if padding in ("same", "causal"):
        return -(-size // stride)
    return (size - (kernel - 1) * dilation - 1) // stride + 1


def product(sizes: Sequence[int | None]) -> int | None:
    """The product, None if any factor is."""
    known = [size for size in sizes if size is not None]
    return prod(known) if len(known) == len(sizes) else None


def several(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """A config entry that is one number for all axes or a list of them."""
    return (value,) * count if isinstance(value, int) else tuple(value)


def simplest(sizes: Sequence[int]) -> int | tuple[int, ...]:
    """One number where all sizes are alike, as people write it."""
    return sizes[0] if len(set(sizes)) == 1 else tuple(sizes)
