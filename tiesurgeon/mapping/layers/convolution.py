"""Convolutions. Keras' kernels are (spatial..., in, out), PyTorch's (out, in, spatial...)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layers.padding import pad_same, same_sides
from tiesurgeon.mapping.layers.shapes import several, simplest, window
from tiesurgeon.mapping.layout import Permute, Reshape, layout, permute
from tiesurgeon.mapping.registry import Example, Pair, Weight, WeightPair, layer_pair
from tiesurgeon.mapping.site import Site

OPTIONS = frozenset(
    """
    filters kernel_size strides padding data_format dilation_rate groups activation use_bias rank
    depth_multiplier output_padding
    """.split()
)


def geometry(layer: Layer) -> tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The number of spatial axes, the kernel's size, the strides and the dilations."""
    rank = next(int(char) for char in layer.op if char in "123")
    sizes = (layer.config[name] for name in ("kernel_size", "strides", "dilation_rate"))
    kernel, strides, dilation = (several(size, rank) for size in sizes)
    return rank, kernel, strides, dilation


class Convolution(Pair):
    """What convolutions have in common: their options and the shape of what comes out."""

    options = OPTIONS
    layout = "own"

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        _, kernel, strides, dilation = geometry(layer)
        first = layer.config.get("data_format") == "channels_first"
        sizes = shapes[0][2:] if first else shapes[0][1:-1]
        windows = [
            window(size, k, s, d, layer.config["padding"])
            for size, k, s, d in zip(sizes, kernel, strides, dilation, strict=True)
        ]
        channels = self.channels(layer, shapes[0][1 if first else -1])
        return (shapes[0][0], channels, *windows) if first else (shapes[0][0], *windows, channels)

    def channels(self, layer: Layer, given: int | None) -> int | None:
        """How many channels come out."""
        filters: int = layer.config["filters"]
        return filters


def spatial(layer: Layer) -> dict[str, Any]:
    """stride and dilation, where they are not 1."""
    _, _, strides, dilation = geometry(layer)
    found = {"stride": simplest(strides), "dilation": simplest(dilation)}
    return {name: size for name, size in found.items() if size != 1}


def _padded(site: Site, value: Value) -> tuple[Value, dict[str, Any]]:
    """The value and the module's `padding` argument that give what Keras' padding does."""
    _, kernel, strides, dilation = geometry(site.layer)
    padding = site.option("padding")
    if padding == "valid" or (all(k == 1 for k in kernel) and set(strides) == {1}):
        return value, {}
    if padding == "causal":
        before = (kernel[0] - 1) * dilation[0]
        return site.call("F.pad", value, (before, 0)), {}
    if set(strides) == {1} and all(
        (k - 1) * d % 2 == 0 for k, d in zip(kernel, dilation, strict=True)
    ):
        return value, {"padding": "same"}
    sizes = site.fact(value).shape
    sizes = sizes[2:] if site.option("data_format") == "channels_first" else sizes[1:-1]
    sides = same_sides(sizes, kernel, strides, dilation)
    if sides is not None and all(before == after for before, after in sides):
        amounts = [before for before, _ in sides]
        return value, {"padding": simplest(amounts)} if any(amounts) else {}
    return pad_same(site, value, sides, kernel, strides, dilation), {}


CONV_EXAMPLES = (
    Example(((11, 5),), {"filters": 3, "kernel_size": 2}, of="Conv1D"),
    Example(((11, 4),), {"filters": 6, "kernel_size": 3, "groups": 2}, of="Conv1D"),
    Example(((11, 5),), {"filters": 3, "kernel_size": 4, "padding": "same"}, of="Conv1D"),
    Example(
        ((None, 5),), {"filters": 3, "kernel_size": 4, "padding": "same", "strides": 3}, of="Conv1D"
    ),
    Example(
        ((11, 5),),
        {"filters": 3, "kernel_size": 3, "padding": "causal", "dilation_rate": 2},
        of="Conv1D",
    ),
    Example(((7, 11, 3),), {"filters": 5, "kernel_size": [3, 2], "use_bias": False}, of="Conv2D"),
    Example(
        ((7, 11, 3),),
        {"filters": 5, "kernel_size": 3, "padding": "same", "activation": "softmax"},
        of="Conv2D",
    ),
    Example(
        ((7, 10, 3),),
        {"filters": 5, "kernel_size": 3, "padding": "same", "strides": 2},
        of="Conv2D",
    ),
    Example(((7, 11, 3),), {"filters": 5, "kernel_size": 3, "dilation_rate": 2}, of="Conv2D"),
    Example(
        ((None, None, 3),),
        {"filters": 5, "kernel_size": [4, 3], "padding": "same", "strides": [3, 2]},
        of="Conv2D",
    ),
    Example(((5, 7, 6, 3),), {"filters": 2, "kernel_size": 3, "padding": "same"}, of="Conv3D"),
)


@layer_pair(keras="Conv1D Conv2D Conv3D", torch="nn.Conv")
class Conv(Convolution):
    """A convolution of one, two or three axes"""

    examples = CONV_EXAMPLES

    def weights_of(self, layer: Layer) -> Iterable[Weight]:
        rank = geometry(layer)[0]
        yield WeightPair("kernel", "weight", permute(rank + 1, rank, *range(rank)))
        yield WeightPair("bias", "bias")

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        rank, kernel, _, _ = geometry(site.layer)
        weight = site.layer.view("kernel")
        assert weight is not None
        groups = site.option("groups", 1)
        value, padding = _padded(site, site.first(args[0]))
        config = {
            "in_channels": weight.shape[-2] * groups,
            "out_channels": weight.shape[-1],
            "kernel_size": simplest(kernel),
            **spatial(site.layer),
            **padding,
            **({"groups": groups} if groups > 1 else {}),
            **bias_option(site.layer),
        }
        value = site.module(value, op=f"nn.Conv{rank}d", config=config)
        return site.activate(value)


@layer_pair(keras="DepthwiseConv1D DepthwiseConv2D", torch="nn.Conv")
class DepthwiseConv(Convolution):
    """Every channel convolved for itself: kernel (h, w, in, m) to weight (in * m, 1, h, w)"""

    examples = (
        Example(((11, 3),), {"kernel_size": 2, "depth_multiplier": 2}, of="DepthwiseConv1D"),
        Example(((7, 11, 3),), {"kernel_size": 3}, of="DepthwiseConv2D"),
        Example(
            ((7, 11, 3),),
            {"kernel_size": 3, "depth_multiplier": 2, "padding": "same", "strides": 2},
            of="DepthwiseConv2D",
        ),
    )

    def channels(self, layer: Layer, given: int | None) -> int | None:
        return None if given is None else given * int(layer.config["depth_multiplier"])

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        return site.activate(_depthwise(site, args[0], "kernel", bias_option(site.layer), ""))


@layer_pair(keras="SeparableConv1D SeparableConv2D", torch="nn.Conv")
class SeparableConv(Convolution):
    """A depthwise convolution, then one of size 1 over the channels"""

    examples = (
        Example(((11, 3),), {"filters": 5, "kernel_size": 2}, of="SeparableConv1D"),
        Example(
            ((7, 11, 3),),
            {"filters": 5, "kernel_size": 3, "depth_multiplier": 2, "padding": "same"},
            of="SeparableConv2D",
        ),
    )

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        rank = geometry(site.layer)[0]
        value = _depthwise(site, args[0], "depthwise_kernel", {"bias": False}, "_depthwise")
        pointwise = site.layer.view("pointwise_kernel")
        assert pointwise is not None
        value = site.module(
            value,
            op=f"nn.Conv{rank}d",
            config={
                "in_channels": pointwise.shape[-2],
                "out_channels": pointwise.shape[-1],
                "kernel_size": 1,
                **bias_option(site.layer),
            },
            weights=(
                WeightPair("pointwise_kernel", "weight", permute(rank + 1, rank, *range(rank))),
                WeightPair("bias", "bias"),
            ),
            suffix="_pointwise",
        )
        return site.activate(value)


def _depthwise(site: Site, value: Value, kernel: str, bias: dict[str, Any], suffix: str) -> Value:
    rank, size, _, _ = geometry(site.layer)
    view = site.layer.view(kernel)
    assert view is not None
    channels, multiplier = view.shape[-2:]
    value, padding = _padded(site, site.first(value))
    moved = (channels, multiplier, *size)
    weight = layout(
        Permute((rank, rank + 1, *range(rank))),
        Reshape(moved, (channels * multiplier, 1, *size)),
    )
    pairs = [WeightPair(kernel, "weight", weight)]
    if not suffix:
        pairs.append(WeightPair("bias", "bias"))
    config = {
        "in_channels": channels,
        "out_channels": channels * multiplier,
        "kernel_size": simplest(size),
        **spatial(site.layer),
        **padding,
        "groups": channels,
        **bias,
    }
    op = f"nn.Conv{rank}d"
    return site.module(value, op=op, config=config, weights=pairs, suffix=suffix)


def bias_option(layer: Layer) -> dict[str, Any]:
    """The constructor's `bias`, where there is none."""
    return {} if layer.view("bias") else {"bias": False}
