"""Batch and layer normalization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiesurgeon.graph import Layer, Value
from tiesurgeon.mapping.layers.reshaping import permuted
from tiesurgeon.mapping.registry import (
    Constant,
    Count,
    Example,
    Pair,
    Weight,
    WeightPair,
    layer_pair,
)
from tiesurgeon.mapping.site import Site


@layer_pair(keras="BatchNormalization", torch="nn.BatchNorm")
class BatchNormalization(Pair):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, per channel.

    PyTorch's momentum is 1 - Keras'. A frozen Keras layer also keeps its moving statistics in
    training, so it becomes a module that stays in eval mode.
    """

    options = frozenset(
        """
        axis momentum epsilon center scale synchronized renorm_momentum
        """.split()
    )
    layout = "own"
    examples = (
        Example(((5,),)),
        Example(((7, 5),), {"momentum": 0.9}),
        Example(((7, 11, 3),), {"epsilon": 1e-5}),
        Example(((3, 7, 11),), {"axis": 1}),
        Example(((7, 5),), {"scale": False}),
        Example(((7, 5),), {"center": False}),
        Example(((7, 5),), {"center": False, "scale": False}),
    )

    def weights_of(self, layer: Layer) -> Iterable[Weight]:
        yield WeightPair("gamma", "weight")
        yield WeightPair("beta", "bias")
        if layer.view("gamma") is None:
            yield Constant("weight", like="bias", value=1.0)
        if layer.view("beta") is None:
            yield Constant("bias", like="weight")
        yield WeightPair("moving_mean", "running_mean")
        yield WeightPair("moving_variance", "running_var")
        yield Count("num_batches_tracked")

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        layer = site.layer
        fact = site.fact(args[0])
        axis = site.option("axis", -1)
        axis = (axis[0] if isinstance(axis, (list, tuple)) else axis) % fact.rank
        mean = layer.view("moving_mean")
        assert mean is not None
        config: dict[str, Any] = {
            "num_features": mean.shape[0],
            "eps": site.option("epsilon", 1e-3),
            "momentum": round(1 - site.option("momentum", 0.99), 10),
        }
        scale, center = layer.view("gamma"), layer.view("beta")
        if scale is None and center is None:
            config["affine"] = False
        elif not layer.config.get("trainable", True):
            op = f"parts.FrozenBatchNorm{max(fact.rank - 2, 1)}d"
            return self._call(site, args[0], axis, op, config)
        return self._call(site, args[0], axis, f"nn.BatchNorm{max(fact.rank - 2, 1)}d", config)

    def _call(self, site: Site, value: Value, axis: int, op: str, config: dict[str, Any]) -> Value:
        rank = site.fact(value).rank
        if rank == 2:
            return site.module(site.plain(value), op=op, config=config)
        if axis == rank - 1:
            return site.module(site.body.first(value, site.hint), op=op, config=config)
        value = site.plain(value)
        if axis == 1:
            return site.module(value, op=op, config=config)
        order = (0, axis, *(other for other in range(1, rank) if other != axis))
        value = site.module(permuted(site, value, order), op=op, config=config)
        return permuted(site, value, (order.index(a) for a in range(rank)))


@layer_pair(keras="LayerNormalization", torch="nn.LayerNorm")
class LayerNormalization(Pair):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, over the last axes of each sample"""

    weights = (WeightPair("gamma", "weight"), WeightPair("beta", "bias"))
    options = frozenset(("axis", "epsilon", "center", "scale", "rms_scaling"))
    pointwise = True
    examples = (
        Example(((7, 5),)),
        Example(((7, 5),), {"epsilon": 1e-5}),
        Example(((7, 5),), {"axis": [1, 2]}),
        Example(((7, 5),), {"center": False}),
        Example(((7, 5),), {"center": False, "scale": False}),
        Example(((7, 5),), {"scale": False}),
    )

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        fact = site.fact(value)
        axis = site.option("axis", -1)
        axes = sorted(a % fact.rank for a in ([axis] if isinstance(axis, int) else axis))
        if axes != list(range(fact.rank - len(axes), fact.rank)) or site.option("rms_scaling"):
            raise site.refuse(f"axis={axis!r} or rms_scaling")
        sizes = [fact.shape[a] for a in axes]
        if None in sizes:
            raise site.refuse("an axis of unknown size")
        scale, center = site.layer.view("gamma"), site.layer.view("beta")
        config: dict[str, Any] = {
            "normalized_shape": sizes[0] if len(sizes) == 1 else tuple(sizes),
            "eps": site.option("epsilon", 1e-3),
        }
        if scale is None and center is not None:
            # nn.LayerNorm has no bias without a weight.
            config["elementwise_affine"] = False
            value = site.module(value, config=config, weights=())
            return site.call("+", value, site.parameter(self.weights[1]))
        if scale is None:
            config["elementwise_affine"] = False
        elif center is None:
            config["bias"] = False
        return site.module(value, config=config)
