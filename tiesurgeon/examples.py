"""Inputs on which two models can both be called: matched by name or place, and made up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tiesurgeon.errors import ShapeMismatch, UnsupportedFormat
from tiesurgeon.graph import Array
from tiesurgeon.running import Sizes, Wanted

BATCH, STEPS = 2, 7
# For sizes that a file leaves open, batch and all others, until a model runs with them.
_SIZES = ((BATCH, STEPS), (1, STEPS), (BATCH, 32), (1, 64), (1, 224), (1, 512))
_KINDS = {"f": "float", "i": "whole", "u": "whole", "b": "whole", "c": "complex"}

Names = Mapping[str, str]


def match(own: Sequence[Wanted], offered: Sequence[Wanted]) -> Names | None:
    """Which of the offered inputs each of a model's own is: {own name: offered name}.

    By name where all names are offered; else each takes the first one left that fits it. None
    if their numbers differ or one fits nothing.
    """
    names = {one.name for one in offered}
    if all(one.name in names for one in own):
        return {one.name: one.name for one in own}
    if len(own) != len(offered):
        return None
    left, found = list(offered), {}
    for one in own:
        fitting = next((other for other in left if _fits(one, other)), None)
        if fitting is None:
            return None
        left.remove(fitting)
        found[one.name] = fitting.name
    return found


def _fits(one: Wanted, other: Wanted) -> bool:
    kinds = {_kind(wanted) for wanted in (one, other) if wanted.dtype}
    if "ids" in kinds:  # Keras takes ids as floats too
        kinds -= {"ids", "whole", "float"}
    if len(kinds) > 1:
        return False
    if one.shape is None or other.shape is None:
        return True
    return len(one.shape) == len(other.shape) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int))
        for a, b in zip(one.shape, other.shape, strict=True)
    )


def _kind(wanted: Wanted) -> str:
    if wanted.below is not None:
        return "ids"
    return (
        wanted.dtype
        if wanted.dtype == "string"
        else _KINDS.get(np.dtype(wanted.dtype).kind, "float")
    )


def joined(one: Sequence[Wanted], other: Sequence[Wanted]) -> tuple[Wanted, ...]:
    """The inputs of two models as one list, each as narrow as both files say.

    Raises ShapeMismatch if it cannot be told which belong together.
    """
    most, fewer = (one, other) if len(one) >= len(other) else (other, one)
    names = match(fewer, most)
    if names is None:
        raise ShapeMismatch(
            f"the first takes {_listed(one)} and the second {_listed(other)}: it cannot be told "
            "which inputs belong together; give --inputs F.npz with a name for each"
        )
    partners = {names[wanted.name]: wanted for wanted in fewer}
    return tuple(_narrowed(wanted, partners.get(wanted.name)) for wanted in most)


def _listed(wanted: Sequence[Wanted]) -> str:
    return ", ".join(f"{one.name} {one.dtype} {one.shape or ''}".strip() for one in wanted)


def _narrowed(one: Wanted, other: Wanted | None) -> Wanted:
    if other is None:
        return one
    bounds = [w.below for w in (one, other) if w.below is not None]
    steps = [w.steps for w in (one, other) if w.steps is not None]
    return replace(
        one,
        shape=_narrower(one.shape, other.shape),
        dtype=one.dtype or other.dtype,
        below=min(bounds, default=None),
        steps=max(steps, default=None),
    )


def _narrower(one: Sizes | None, other: Sizes | None) -> Sizes | None:
    if one is None or other is None or len(one) != len(other):
        return one if one is not None else other
    pairs = zip(one, other, strict=True)
    return tuple(a if isinstance(a, int) or b is None else b for a, b in pairs)


def made(wanted: Sequence[Wanted], *, seed: int = 0) -> Iterator[dict[str, Array]]:
    """Seeded arrays by name, again and again with other sizes where sizes are open.

    Ids stay below the vocabulary; other whole numbers are 0 or 1, and masks let all through.
    UnsupportedFormat for inputs that cannot be made up.
    """
    seen = set()
    is_sure = any(one.steps is not None for one in wanted)
    # A state may have its batch on another axis, by the name that the first axis has elsewhere.
    batches = {one.shape[0] for one in wanted if one.shape and isinstance(one.shape[0], str)}
    for batch, steps in _SIZES[:1] if is_sure else _SIZES:
        shapes = tuple(_shape(one, batch, steps, batches) for one in wanted)
        if shapes not in seen:
            seen.add(shapes)
            rng = np.random.default_rng(seed)
            pairs = zip(wanted, shapes, strict=True)
            yield {one.name: _array(one, shape, rng) for one, shape in pairs}


def _shape(wanted: Wanted, batch: int, steps: int, batches: set[str]) -> tuple[int, ...]:
    if wanted.shape is None:
        raise UnsupportedFormat(
            f"the shape of input {wanted.name} is not in the file; give --inputs F.npz"
        )
    return tuple(
        dim
        if isinstance(dim, int)
        else batch
        if axis == 0 or dim in batches
        else wanted.steps or steps
        for axis, dim in enumerate(wanted.shape)
    )


def _array(wanted: Wanted, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if wanted.dtype == "string":
        raise UnsupportedFormat(f"input {wanted.name} takes strings; give --inputs F.npz")
    dtype = np.dtype(wanted.dtype or "float32")
    if wanted.below is not None:
        return rng.integers(0, max(wanted.below, 1), shape).astype(dtype)
    if dtype.kind in "iub":
        lets_all_through = "mask" in wanted.name.lower()  # a row masked wholly gives NaN
        return (np.ones(shape) if lets_all_through else rng.integers(0, 2, shape)).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def described(arrays: Mapping[str, Array]) -> tuple[Wanted, ...]:
    """Given arrays as what they would satisfy."""
    return tuple(Wanted(name, a.shape, a.dtype.name) for name, a in arrays.items())


def routed(wanted: Sequence[Wanted], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays under a model's own names for them, in its dtypes.

    Raises ShapeMismatch where they do not fit.
    """
    names = match(wanted, described(arrays))
    if names is None:
        raise ShapeMismatch(
            f"it takes {_listed(wanted)}, and what is given is {_listed(described(arrays))}"
        )
    return {one.name: _cast(one, arrays[names[one.name]]) for one in wanted}


def _cast(wanted: Wanted, array: Array) -> Array:
    if not wanted.dtype or wanted.dtype == "string":
        return array
    dtype = np.dtype(wanted.dtype)
    if array.dtype.kind == "f" and dtype.kind in "iu" and not bool((array == array.round()).all()):
        raise ShapeMismatch(f"input {wanted.name} takes {dtype}, and what is given has fractions")
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ShapeMismatch(f"input {wanted.name} takes {dtype}, and what is given is larger")
    return array.astype(dtype)
