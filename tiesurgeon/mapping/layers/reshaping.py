"""Layers that move numbers without changing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layers.shapes import product, several
from tiesurgeon.mapping.registry import Example, Pair, layer_pair
from tiesurgeon.mapping.site import Site


@layer_pair(keras="Flatten", torch=".flatten")
class Flatten(Pair):
    """All axes but the batch as one, channels last in either data_format"""

    options = frozenset(("data_format",))
    examples = (
        Example(((7, 5),)),
        Example(((7, 5, 3),), {"data_format": "channels_first"}),
        Example(((5,),)),
        Example(((),)),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return (shapes[0][0], product(shapes[0][1:]))

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        rank = site.fact(value).rank
        if rank == 1:
            return site.call(".unsqueeze", value, 1)
        if rank == 2:
            return value
        if site.option("data_format") == "channels_first":
            value = permuted(site, value, (0, *range(2, rank), 1))
        return site.call(".flatten", value, 1)


@layer_pair(keras="Reshape", torch=".reshape")
class Reshape(Pair):
    """The same numbers in another shape, the batch apart"""

    options = frozenset(("target_shape",))
    examples = (
        Example(((6, 5),), {"target_shape": [3, 10]}),
        Example(((6, 5),), {"target_shape": [-1, 5, 2]}),
        Example(((None, 6),), {"target_shape": [-1, 3]}),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        batch = site.fact(args[0]).shape[0]
        target = tuple(site.option("target_shape"))
        free = -1 if batch is None and -1 not in target else batch
        if free is None:
            rest = [size for size in target if size != -1]
            whole = product(site.fact(args[0]).shape[1:])
            known = product(rest)
            if whole is not None and known:
                target = tuple(whole // known if size == -1 else size for size in target)
                free = -1
        return reshaped(site, args[0], (free, *target), batch)


@layer_pair(keras="Permute", torch=".permute")
class Permute(Pair):
    """The axes in another order, counted from 1 after the batch"""

    options = frozenset(("dims",))
    examples = (Example(((7, 5, 3),), {"dims": [3, 1, 2]}), Example(((7, 5),), {"dims": [2, 1]}))

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return permuted(site, args[0], (0, *site.option("dims")))


@layer_pair(keras="RepeatVector", torch=".expand")
class RepeatVector(Pair):
    """The vector n times along a new axis"""

    options = frozenset(("n",))
    examples = (Example(((5,),), {"n": 3}),)

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        return (shapes[0][0], layer.config["n"], shapes[0][1])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        steps = site.call(".unsqueeze", args[0], 1)
        return site.call(".expand", steps, -1, site.option("n"), -1)


class _Borders(Pair):
    """Layers that take away or add at the borders of the spatial axes."""

    options = frozenset(("padding", "cropping", "data_format"))

    def borders(self, layer: Layer) -> list[tuple[int, int]]:
        """How many before and after, for each spatial axis."""
        entry = layer.config.get("padding", layer.config.get("cropping"))
        count = int(layer.op[-2])
        if isinstance(entry, int):
            return [(entry, entry)] * count
        if count == 1:
            return [(entry[0], entry[1])]
        return [(item, item) if isinstance(item, int) else (item[0], item[1]) for item in entry]

    def axes(self, layer: Layer) -> range:
        """The spatial axes, the batch counted."""
        first = 2 if layer.config.get("data_format") == "channels_first" else 1
        return range(first, first + len(self.borders(layer)))


@layer_pair(keras="ZeroPadding1D ZeroPadding2D ZeroPadding3D", torch="F.pad")
class ZeroPadding(_Borders):
    """Zeros around the spatial axes"""

    examples = (
        Example(((7, 5),), of="ZeroPadding1D"),
        Example(((7, 5),), {"padding": [1, 2]}, of="ZeroPadding1D"),
        Example(((7, 11, 3),), {"padding": [[1, 2], [0, 3]]}, of="ZeroPadding2D"),
        Example(
            ((3, 7, 11),), {"padding": [2, 1], "data_format": "channels_first"}, of="ZeroPadding2D"
        ),
        Example(((5, 7, 6, 2),), {"padding": 1}, of="ZeroPadding3D"),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        sizes = list(shapes[0])
        for axis, (before, after) in zip(self.axes(layer), self.borders(layer), strict=True):
            size = sizes[axis]
            sizes[axis] = None if size is None else size + before + after
        return tuple(sizes)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        after_axes = site.fact(args[0]).rank - self.axes(site.layer).stop
        pads = [0, 0] * after_axes
        for before, after in reversed(self.borders(site.layer)):
            pads += [before, after]
        return site.call("F.pad", args[0], tuple(pads))


@layer_pair(keras="Cropping1D Cropping2D Cropping3D", torch="[]")
class Cropping(_Borders):
    """Without the borders of the spatial axes"""

    examples = (
        Example(((7, 5),), of="Cropping1D"),
        Example(((7, 5),), {"cropping": [1, 2]}, of="Cropping1D"),
        Example(((7, 11, 3),), {"cropping": [[1, 2], [0, 3]]}, of="Cropping2D"),
        Example(
            ((3, 7, 11),), {"cropping": [2, 1], "data_format": "channels_first"}, of="Cropping2D"
        ),
        Example(((5, 7, 6, 2),), {"cropping": 1}, of="Cropping3D"),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        sizes = list(shapes[0])
        for axis, (before, after) in zip(self.axes(layer), self.borders(layer), strict=True):
            size = sizes[axis]
            sizes[axis] = None if size is None else size - before - after
        return tuple(sizes)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        index = [slice(None)] * self.axes(site.layer).start
        index += [slice(a or None, -b if b else None) for a, b in self.borders(site.layer)]
        return site.call("[]", args[0], tuple(index))


@layer_pair(keras="UpSampling1D UpSampling2D UpSampling3D", torch="F.interpolate")
class UpSampling(Pair):
    """Every number repeated along the spatial axes, or interpolated between"""

    options = frozenset(("size", "data_format", "interpolation"))
    layout = "own"
    examples = (
        Example(((7, 5),), {"size": 2}, of="UpSampling1D"),
        Example(((5, 7, 3),), {"size": [2, 3]}, of="UpSampling2D"),
        Example(((5, 7, 3),), {"interpolation": "bilinear"}, of="UpSampling2D"),
        Example(((3, 5, 7),), {"data_format": "channels_first"}, of="UpSampling2D"),
        Example(((2, 3, 4, 5),), of="UpSampling3D"),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        shape = shapes[0]
        count = len(shape) - 2
        first = 2 if layer.config.get("data_format") == "channels_first" else 1
        factors = several(layer.config["size"], count)
        grown = [None if s is None else s * f for s, f in zip(shape[first:], factors, strict=False)]
        return (*shape[:first], *grown, *shape[first + count :])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value = site.first(args[0])
        mode = site.option("interpolation", "nearest")
        if mode not in ("nearest", "bilinear"):
            raise site.refuse(f"interpolation={mode!r}")
        factors = several(site.option("size"), site.fact(value).rank - 2)
        scale = factors[0] if len(set(factors)) == 1 else tuple(map(float, factors))
        options = {"mode": mode} if mode != "nearest" else {}
        return site.call("F.interpolate", value, scale_factor=scale, **options)


def permuted(site: Site, value: Value, axes: Iterable[int]) -> Value:
    """The value with its axes in that order."""
    order = tuple(axes)
    shape = site.fact(value).shape
    moved = tuple(shape[axis] for axis in order)
    return site.call(".permute", value, *order, shape=moved)


def reshaped(
    site: Site, value: Value, sizes: Sequence[int | None], batch: int | None = None
) -> Value:
    """The value in that shape, one size at most -1; None is the batch, whatever its size."""
    whole = product(site.fact(value).shape)
    known = product([size for size in sizes if size not in (-1, None)])
    shape = [None if size in (-1, None) else size for size in sizes]
    if whole is not None and known:
        shape = [whole // known if size is None else size for size in shape]
    if None in sizes:
        first: Any = site.call(".size", value, 0, shape=(), dtype="int64")
        sizes = [first if size is None else size for size in sizes]
    shape[0] = batch if batch is not None else shape[0]
    return site.call(".reshape", value, *sizes, shape=tuple(shape))
