"""Pooling over windows and over everything."""

from __future__ import annotations

from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layers.padding import pad_same, same_sides
from tiesurgeon.mapping.layers.shapes import several, simplest, window
from tiesurgeon.mapping.registry import Example, Pair, layer_pair
from tiesurgeon.mapping.site import Site

OPTIONS = frozenset(("pool_size", "strides", "padding", "data_format"))


class _Pooling(Pair):
    options = OPTIONS
    layout = "own"

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        rank, pool, strides = _geometry(layer)
        start = 2 if layer.config.get("data_format") == "channels_first" else 1
        sizes = shapes[0][start : start + rank]
        pooled = (
            window(size, k, s, 1, layer.config["padding"])
            for size, k, s in zip(sizes, pool, strides, strict=True)
        )
        return (*shapes[0][:start], *pooled, *shapes[0][start + rank :])

    def config(self, layer: Layer) -> dict[str, Any]:
        """kernel_size, and stride where it is not the same."""
        _, pool, strides = _geometry(layer)
        stride = {"stride": simplest(strides)} if strides != pool else {}
        return {"kernel_size": simplest(pool), **stride}


def _examples(op: str) -> tuple[Example, ...]:
    return (
        Example(((11, 5),), {"pool_size": 2}, of=f"{op}1D"),
        Example(((11, 5),), {"pool_size": 3, "strides": 2, "padding": "same"}, of=f"{op}1D"),
        Example(((7, 11, 3),), {"pool_size": 2}, of=f"{op}2D"),
        Example(((7, 11, 3),), {"pool_size": [3, 2], "padding": "same"}, of=f"{op}2D"),
        Example(((None, None, 3),), {"pool_size": 3, "padding": "same"}, of=f"{op}2D"),
        Example(((3, 7, 11),), {"pool_size": 2, "data_format": "channels_first"}, of=f"{op}2D"),
        Example(((4, 6, 5, 3),), {"pool_size": 2}, of=f"{op}3D"),
    )


@layer_pair(keras="MaxPooling1D MaxPooling2D MaxPooling3D", torch="nn.MaxPool")
class MaxPooling(_Pooling):
    """The largest number of each window; padding never wins"""

    examples = _examples("MaxPooling")

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        rank, pool, strides = _geometry(site.layer)
        value = site.first(args[0])
        config = self.config(site.layer)
        if site.option("padding") == "same":
            sides = same_sides(_sizes(site, value), pool, strides, (1,) * rank)
            if sides is not None and all(before == after for before, after in sides):
                amounts = [before for before, _ in sides]
                config |= {"padding": simplest(amounts)} if any(amounts) else {}
            else:
                ones = (1,) * rank
                value = pad_same(site, value, sides, pool, strides, ones, fill=float("-inf"))
        return site.module(value, op=f"nn.MaxPool{rank}d", config=config)


@layer_pair(keras="AveragePooling1D AveragePooling2D AveragePooling3D", torch="nn.AvgPool")
class AveragePooling(_Pooling):
    """The mean of each window; padding does not count"""

    examples = _examples("AveragePooling")

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        rank, pool, strides = _geometry(site.layer)
        value = site.first(args[0])
        config = self.config(site.layer)
        if site.option("padding") == "same":
            sides = same_sides(_sizes(site, value), pool, strides, (1,) * rank)
            if sides is None or any(before != after for before, after in sides):
                return site.call("parts.average_pool_same", value, pool, strides)
            amounts = [before for before, _ in sides]
            if any(amounts):
                config |= {"padding": simplest(amounts), "count_include_pad": False}
        return site.module(value, op=f"nn.AvgPool{rank}d", config=config)


class _GlobalPooling(Pair):
    """A reduction over the spatial axes."""

    options = frozenset(("data_format", "keepdims"))
    layout = "own"

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        shape = shapes[0]
        first = layer.config.get("data_format") == "channels_first"
        channels = shape[1 if first else -1]
        if not layer.config.get("keepdims"):
            return (shape[0], channels)
        ones = (1,) * (len(shape) - 2)
        return (shape[0], channels, *ones) if first else (shape[0], *ones, channels)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        fact = site.fact(value)
        first = fact.channels_first or site.option("data_format") == "channels_first"
        axes = tuple(range(2, fact.rank)) if first else tuple(range(1, fact.rank - 1))
        options: dict[str, Any] = {"keepdim": True} if site.option("keepdims") else {}
        if kwargs.get("mask") is not None:
            return _masked_mean(site, value, kwargs["mask"], axes[0], options)
        dim: Any = axes[0] if len(axes) == 1 else axes
        result = site.call(self.torch, value, dim=dim, **options)
        if not site.option("keepdims"):
            site.is_plain(result)
        return result


def _global_examples(op: str) -> tuple[Example, ...]:
    return (
        Example(((11, 5),), of=f"{op}1D"),
        Example(((7, 11, 3),), of=f"{op}2D"),
        Example(((7, 11, 3),), {"keepdims": True}, of=f"{op}2D"),
        Example(((3, 7, 11),), {"data_format": "channels_first"}, of=f"{op}2D"),
        Example(((4, 6, 5, 3),), of=f"{op}3D"),
    )


@layer_pair(
    keras="GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D", torch=".mean"
)
class GlobalAveragePooling(_GlobalPooling):
    """The mean of every channel, masked steps apart"""

    examples = (
        *_global_examples("GlobalAveragePooling"),
        Example(((11, 5),), mask=True, of="GlobalAveragePooling1D"),
        Example(((11, 5),), {"keepdims": True}, mask=True, of="GlobalAveragePooling1D"),
    )


@layer_pair(keras="GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D", torch=".amax")
class GlobalMaxPooling(_GlobalPooling):
    """The largest number of every channel"""

    examples = _global_examples("GlobalMaxPooling")


def _masked_mean(
    site: Site, value: Value, mask: Value, axis: int, options: dict[str, Any]
) -> Value:
    if axis != 1:
        options = {"dim": axis, **options}
    return site.call("parts.masked_mean", site.plain(value), mask, **options)


def _geometry(layer: Layer) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    rank = int(layer.op[-2])
    pool = several(layer.config["pool_size"], rank)
    strides = layer.config.get("strides")
    return rank, pool, pool if strides is None else several(strides, rank)


def _sizes(site: Site, value: Value) -> Dims:
    shape = site.fact(value).shape
    return shape[2:] if site.option("data_format") == "channels_first" else shape[1:-1]
