"""Keras' "same" padding where PyTorch's symmetric one is not enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiesurgeon.graph import Value
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.site import Site

Sides = list[tuple[int, int]]


def same_sides(
    sizes: Dims, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Sides | None:
    """How much "same" adds before and after each axis; None where a size is not known.

    The last window starts at (ceil(size / stride) - 1) * stride; what it lacks is added, the
    odd one after.
    """
    sides = []
    for size, k, s, d in zip(sizes, kernel, strides, dilation, strict=True):
        reach = (k - 1) * d + 1
        if size is None:
            return None
        total = max((-(-size // s) - 1) * s + reach - size, 0)
        sides.append((total // 2, total - total // 2))
    return sides


def pad_same(
    site: Site,
    value: Value,
    sides: Sides | None,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
    fill: float = 0.0,
) -> Value:
    """The value, channels first, with that padding; worked out at run time if it must be."""
    options: dict[str, Any] = {"value": fill} if fill else {}
    if sides is None:
        reach = tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))
        return site.call("parts.pad_same", value, reach, tuple(strides), **options)
    flat = tuple(size for side in reversed(sides) for size in side)
    return site.call("F.pad", value, flat, **options) if any(flat) else value
