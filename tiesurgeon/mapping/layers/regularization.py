"""Dropout and noise: they do nothing in eval mode and what Keras does in training."""

from __future__ import annotations

from typing import Any, ClassVar

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.registry import Example, Examples, Layout, Pair, layer_pair
from tiesurgeon.mapping.site import Site


class _Rate(Pair):
    """Layers whose one option is the rate."""

    options = frozenset(("rate",))
    layout: ClassVar[Layout] = "any"
    pointwise = True
    examples: ClassVar[Examples] = (Example(((7, 5),), {"rate": 0.3}),)

    def arguments(self, layer: Layer) -> dict[str, Any]:
        return {"p": layer.config["rate"]}


@layer_pair(keras="Dropout", torch="nn.Dropout")
class Dropout(_Rate):
    """Drops single numbers; with a noise_shape, the same ones along the axes of size 1"""

    options = _Rate.options | {"noise_shape"}

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        noise_shape = site.option("noise_shape")
        if noise_shape is None:
            return site.module(args[0])
        shared = tuple(axis for axis, size in enumerate(noise_shape) if size == 1 and axis)
        config = {**self.arguments(site.layer), "shared": shared}
        return site.module(site.plain(args[0]), op="parts.SharedDropout", config=config)


@layer_pair(keras="SpatialDropout1D SpatialDropout2D SpatialDropout3D", torch="parts.SharedDropout")
class SpatialDropout(_Rate):
    """Drops whole channels"""

    options = _Rate.options | {"data_format"}
    layout = "own"
    pointwise = False
    examples = (
        Example(((7, 5),), {"rate": 0.3}, of="SpatialDropout1D"),
        Example(((7, 5, 3),), {"rate": 0.3}, of="SpatialDropout2D"),
        Example(
            ((3, 7, 5),), {"rate": 0.3, "data_format": "channels_first"}, of="SpatialDropout2D"
        ),
        Example(((3, 5, 7, 2),), {"rate": 0.3}, of="SpatialDropout3D"),
    )

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        fact = site.fact(args[0])
        first = fact.channels_first or site.option("data_format") == "channels_first"
        config: dict[str, Any] = self.arguments(site.layer)
        if first and fact.rank in (3, 4, 5):
            return site.module(args[0], op=f"nn.Dropout{fact.rank - 2}d", config=config)
        config["shared"] = tuple(range(1, fact.rank - 1))
        return site.module(args[0], config=config)


@layer_pair(keras="GaussianDropout", torch="parts.GaussianDropout")
class GaussianDropout(_Rate):
    """Multiplies by noise around 1"""


@layer_pair(keras="GaussianNoise", torch="parts.GaussianNoise")
class GaussianNoise(Pair):
    """Adds noise around 0"""

    options = frozenset(("stddev",))
    layout = "any"
    pointwise = True
    examples = (Example(((7, 5),), {"stddev": 0.3}),)

    def arguments(self, layer: Layer) -> dict[str, Any]:
        return {"stddev": layer.config["stddev"]}


@layer_pair(keras="AlphaDropout", torch="nn.AlphaDropout")
class AlphaDropout(_Rate):
    """Dropout that keeps mean and variance of SELU activations"""

    options = _Rate.options | {"noise_shape"}

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        if site.option("noise_shape") is not None:
            raise site.refuse(f"noise_shape={site.option('noise_shape')!r}")
        return site.module(args[0])
