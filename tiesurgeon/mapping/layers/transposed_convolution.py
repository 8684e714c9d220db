"""Transposed convolutions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.layers.convolution import Convolution, bias_option, geometry, spatial
from tiesurgeon.mapping.layers.shapes import simplest
from tiesurgeon.mapping.layout import permute
from tiesurgeon.mapping.registry import Example, Weight, WeightPair, layer_pair
from tiesurgeon.mapping.site import Site


@layer_pair(keras="Conv1DTranspose Conv2DTranspose Conv3DTranspose", torch="nn.ConvTranspose")
class ConvTranspose(Convolution):
    """The transposed convolution: kernel (h, w, out, in) to weight (in, out, h, w).

    Keras crops the full result to stride * size ("same") or to it plus what a larger kernel
    adds ("valid"); PyTorch's padding crops both sides alike, so the rest is cut off after.
    """

    examples = (
        Example(((11, 5),), {"filters": 3, "kernel_size": 2, "strides": 2}, of="Conv1DTranspose"),
        Example(((2, 3, 4, 5),), {"filters": 2, "kernel_size": 3}, of="Conv3DTranspose"),
        *(
            Example(
                ((5, 7, 3),),
                {"filters": 2, "kernel_size": kernel, "strides": strides, "padding": padding},
                of="Conv2DTranspose",
            )
            for kernel, strides in ((3, 2), (2, 2), (4, 2), (3, 1), (2, 3))
            for padding in ("same", "valid")
        ),
    )

    def weights_of(self, layer: Layer) -> Iterable[Weight]:
        rank = geometry(layer)[0]
        yield WeightPair("kernel", "weight", permute(rank + 1, rank, *range(rank)))
        yield WeightPair("bias", "bias")

    def shape(self, layer: Layer, *shapes: Dims) -> Dims:
        first = layer.config.get("data_format") == "channels_first"
        sizes = shapes[0][2:] if first else shapes[0][1:-1]
        _, kernel, strides, _ = geometry(layer)
        valid = layer.config["padding"] == "valid"
        grown = [
            None if size is None else size * s + (max(k - s, 0) if valid else 0)
            for size, k, s in zip(sizes, kernel, strides, strict=True)
        ]
        filters = layer.config["filters"]
        return (shapes[0][0], filters, *grown) if first else (shapes[0][0], *grown, filters)

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        rank, kernel, strides, dilation = geometry(site.layer)
        if set(dilation) != {1} or site.option("output_padding") is not None:
            raise site.refuse("dilation_rate or output_padding")
        weight = site.layer.view("kernel")
        assert weight is not None
        crops = [_crop(k, s, site.option("padding")) for k, s in zip(kernel, strides, strict=True)]
        padding = [min(crop) if min(crop) > 0 else 0 for crop in crops]
        # One more on the far side than the kernel reaches: output_padding.
        extra = [max(0, -(after - pad)) for (_, after), pad in zip(crops, padding, strict=True)]
        config = {
            "in_channels": weight.shape[-1],
            "out_channels": weight.shape[-2],
            "kernel_size": simplest(kernel),
            **spatial(site.layer),
            **({"padding": simplest(padding)} if any(padding) else {}),
            **({"output_padding": simplest(extra)} if any(extra) else {}),
            **bias_option(site.layer),
        }
        op = f"nn.ConvTranspose{rank}d"
        value = site.module(site.first(args[0]), op=op, config=config)
        left = [
            slice(before - pad or None, -(after - pad) if after > pad else None)
            for (before, after), pad in zip(crops, padding, strict=True)
        ]
        if any(part != slice(None) for part in left):
            value = site.call("[]", value, (..., *left))
        return site.activate(value)


def _crop(kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """How much of the full result, stride * (size - 1) + kernel, Keras cuts off before and
    after; less than 0 where it adds zeros."""
    surplus = kernel - stride
    if padding == "valid":
        return 0, min(surplus, 0)
    before = max(surplus, 0) // 2
    return before, surplus - before
