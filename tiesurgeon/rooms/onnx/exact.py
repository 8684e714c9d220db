"""Quantised matrices can be one only where integers, scales and zero points are the same."""

from __future__ import annotations

import numpy as np

from tiesurgeon.edits import Perm
from tiesurgeon.errors import TieRefused
from tiesurgeon.find.values import bits_equal
from tiesurgeon.graph import Array, Storage
from tiesurgeon.rooms.onnx.layers import Use
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage


def refuse_inexact(one: Use, other: Use, perm: Perm | None) -> None:
    """TieRefused unless both are plain, or quantised alike to the last bit."""
    a, b = one.held.variable.storage, other.held.variable.storage
    quantised = [isinstance(storage, QuantisedStorage) for storage in (a, b)]
    if not any(quantised):
        return
    if not isinstance(a, QuantisedStorage) or not isinstance(b, QuantisedStorage):
        raise TieRefused(
            f"of {one.path!r} and {other.path!r} one is quantised and one is not; tie the model "
            "before it is quantised"
        )
    if a.packed.dtype != b.packed.dtype or not _same_scales(a, b, perm):
        raise TieRefused(
            f"{one.path!r} ({a.words}) and {other.path!r} ({b.words}) are quantised with other "
            "scales or zero points, so one set of integers cannot serve both; tie the model "
            "before it is quantised"
        )
    integers = a.packed.load() if perm is None else a.packed.load().transpose(perm)
    if not bits_equal(integers, b.packed.load()):
        raise TieRefused(
            f"{one.path!r} and {other.path!r} hold other integers; a method cannot choose among "
            "quantised values, so tie the model before it is quantised"
        )


def _same_scales(a: QuantisedStorage, b: QuantisedStorage, perm: Perm | None) -> bool:
    if a.bits != b.bits or not np.array_equal(a.scale.load().ravel(), b.scale.load().ravel()):
        return False
    if not np.array_equal(_zeros(a.zero_point, a), _zeros(b.zero_point, b)):
        return False
    axis = a.axis if a.axis is None or perm is None else perm.index(a.axis % len(perm))
    return axis == b.axis


def _zeros(zero_point: Storage | None, storage: QuantisedStorage) -> Array:
    if zero_point is None:
        return np.zeros(storage.scale.size)
    return zero_point.load().ravel().astype(float)
