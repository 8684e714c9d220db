"""Models used as layers, and TimeDistributed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tiesurgeon.graph import Layer, Value, values_in
from tiesurgeon.mapping.building import Dims
from tiesurgeon.mapping.registry import Example, Pair, layer_pair
from tiesurgeon.mapping.site import Site


@layer_pair(keras="Functional", torch="graph")
class Functional(Pair):
    """A model within a model: a class of its own. A Sequential or a Model is the same."""

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def dtype(self, layer: Layer, *dtypes: str) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value | tuple[Value, ...]:
        given = list(values_in((args, kwargs)))
        body, name = site.body, site.attribute
        if name not in body.layers:
            assert site.layer.body is not None
            facts = [site.fact(value) for value in given]
            path = f"{body.path}{name}."
            graph, body.nested[name] = site.conversion.graph(site.layer.body, path, facts)
            body.layers[name] = Layer(name, "graph", body=graph)
        outputs = body.nested[name]
        value = body.call(name, *given, hint=site.hint, fact=outputs[0])
        if len(outputs) == 1:
            return value
        return value, *(body.output(value, n, fact) for n, fact in enumerate(outputs) if n)


@layer_pair(keras="TimeDistributed", torch="")
class TimeDistributed(Pair):
    """The layer on every step: directly where it acts on the last axis alone, else with time
    folded into the batch."""

    options = frozenset(("layer",))
    examples = (
        Example(((7, 5),), {"layer": {"class_name": "Dense", "config": {"units": 3}}}),
        Example(
            ((None, 11, 7, 2),),
            {"layer": {"class_name": "Conv2D", "config": {"filters": 3, "kernel_size": 3}}},
        ),
        Example(
            ((5, 7, 2),),
            {"layer": {"class_name": "LSTM", "config": {"units": 3}}},
        ),
        Example(((5, 7, 2),), {"layer": {"class_name": "Flatten", "config": {}}}),
    )

    def shape(self, layer: Layer, *shapes: Dims) -> None:
        return None

    def dtype(self, layer: Layer, *dtypes: str) -> None:
        return None

    def forward(self, site: Site, *args: Any, **kwargs: Any) -> Value:
        value: Value = args[0]
        layer = replace(site.layer.inner[0], name=site.layer.name)
        inner = site.inside(layer)
        if inner.pair.pointwise:
            return single(inner.run(value))
        fact = site.fact(value)
        folded = site.call(".flatten", value, 0, 1, shape=(None, *fact.shape[2:]))
        result = site.plain(single(inner.run(folded)))
        steps = fact.shape[1]
        sizes: Any = (-1, steps)
        if steps is None:
            whole = site.call("shape", value, shape=(fact.rank,), dtype="int64")
            sizes = site.call("[]", whole, slice(2), shape=(2,), dtype="int64")
        shape = (fact.shape[0], steps, *site.fact(result).shape[1:])
        return site.call(".unflatten", result, 0, sizes, shape=shape)


def single(result: Value | tuple[Value, ...]) -> Value:
    """The value of a layer that returns one."""
    if not isinstance(result, Value):
        raise ValueError("a layer with several outputs stands where one is expected")
    return result
