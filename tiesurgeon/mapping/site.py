"""One Keras call being turned into PyTorch calls: what a pair's `forward` works with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tiesurgeon.errors import UnmappedLayer
from tiesurgeon.graph import Layer, Value, View, map_values, values_in
from tiesurgeon.mapping.activation_functions import activate
from tiesurgeon.mapping.building import Body, Dims, Fact
from tiesurgeon.mapping.parameters import Parameters, constant
from tiesurgeon.mapping.registry import (
    Constant,
    Count,
    Pair,
    Weight,
    WeightPair,
    find,
    refused,
)
from tiesurgeon.mapping.torch_words import Name

if TYPE_CHECKING:
    from tiesurgeon.mapping.to_torch import Conversion

# Modules that can be written as a function of their weights, for a tie through a transpose.
_FUNCTIONS = {"nn.Linear": "F.linear", "nn.Embedding": "F.embedding"}


@dataclass
class Site:
    """The Keras layer, its pair, the names to use and the graph to add to."""

    conversion: Conversion
    body: Body
    layer: Layer
    pair: Pair
    attribute: str
    hint: str

    @property
    def parameters(self) -> Parameters:
        return self.conversion.parameters

    def fact(self, value: Value) -> Fact:
        """What is known of a PyTorch value."""
        return self.body.facts[value]

    def option(self, name: str, default: Any = None) -> Any:
        """A config entry of the Keras layer."""
        return self.layer.config.get(name, default)

    def refuse(self, option: str, why: str = "has no PyTorch counterpart yet") -> UnmappedLayer:
        """The error to raise for an option that this pair cannot express."""
        return refused(self.layer, option, why)

    def plain(self, value: Value) -> Value:
        """The value in Keras' layout."""
        return self.body.plain(value, self.hint)

    def first(self, value: Value) -> Value:
        """The value with channels first; a layer with data_format channels_first has it so."""
        if self.option("data_format") == "channels_first":
            return self.plain(value)
        return self.body.first(value, self.hint)

    def inside(self, layer: Layer, suffix: str = "") -> Site:
        """The site of a layer that this one wraps; it goes by the wrapper's name."""
        attribute = self.body.attribute(self.attribute, suffix)
        return replace(self, layer=layer, pair=find(layer), attribute=attribute)

    def run(self, *args: Any, **kwargs: Any) -> Value | tuple[Value, ...]:
        """What the layer does, its inputs in the layout that the pair asks for."""
        if self.pair.layout == "keras" or not _all_first(self.body, args):
            if self.pair.layout != "own":
                args = map_values(args, self.plain)
            kwargs = map_values(kwargs, self.plain)
        facts = [self.fact(value) for value in values_in(args)]
        results = self.pair.forward(self, *args, **kwargs)
        if isinstance(results, Value):
            shape = self.pair.shape(self.layer, *(fact.shape for fact in facts))
            self.note(results, shape, self.pair.dtype(self.layer, *(f.dtype for f in facts)))
        return results

    def call(
        self,
        op: str,
        *args: Any,
        shape: Dims | None = None,
        dtype: str | None = None,
        hint: str | None = None,
        **options: Any,
    ) -> Value:
        """Calls a function, method or operator."""
        value = self.body.call(op, *args, hint=hint or self.hint, options=options)
        self.note(value, shape, dtype)
        return value

    def activate(self, value: Value, option: str = "activation") -> Value:
        """The value after the activation that the layer's config names."""
        return activate(self, self.option(option), value)

    def is_plain(self, value: Value) -> None:
        """Notes that a value has lost its spatial axes, and with them the question of layout."""
        self.body.facts[value] = replace(self.fact(value), channels_first=False)

    def note(self, value: Value, shape: Dims | None = None, dtype: str | None = None) -> None:
        """Corrects what is known of a value."""
        fact = self.fact(value)
        self.body.facts[value] = replace(
            fact,
            shape=fact.shape if shape is None else shape,
            dtype=dtype or fact.dtype,
        )

    def module(
        self,
        *args: Any,
        op: str | None = None,
        config: Mapping[str, Any] | None = None,
        weights: Iterable[Weight] | None = None,
        made: Iterable[View] | None = None,
        suffix: str = "",
        **options: Any,
    ) -> Value:
        """Calls the layer's module, which is added with its weights at the first call.

        `made` are its views where they are at hand already, `suffix` tells several modules of
        one Keras layer apart.
        """
        name = self.body.attribute(self.attribute, suffix)
        op = op or self.pair.torch
        if name not in self.body.modules:
            pairs = self.pair.weights_of(self.layer) if weights is None else weights
            arguments = self.pair.arguments(self.layer) if config is None else config
            is_table = op == "nn.Embedding"
            views = tuple(made or self.views(name, self.layer, pairs, is_table=is_table))
            self.body.modules[name] = Layer(name, op, {**arguments, **_number_type(views)}, views)
        module = self.body.modules[name]
        if any(view.perm for view in module.views):
            return self._as_function(module, *args)
        self.body.layers.setdefault(name, module)
        if module.views and module.op != "nn.Embedding":
            args = map_values(args, self._as_float)
        return self.body.call(name, *args, hint=self.hint, options=options)

    def _as_float(self, value: Value) -> Value:
        """Keras multiplies integers with float weights; PyTorch does not."""
        if "float" in self.fact(value).dtype:
            return value
        return self.call(".float", value, dtype="float32")

    def views(
        self, name: str, source: Layer, pairs: Iterable[Weight], is_table: bool = False
    ) -> Iterable[View]:
        """The PyTorch views of a Keras layer's weights."""
        made: dict[str, View] = {}
        for pair in pairs:
            path = f"{self.body.path}{name}.{pair.torch}"
            if isinstance(pair, Constant):
                if pair.like in made:
                    array = np.full(made[pair.like].shape, pair.value, np.float32)
                    made[pair.torch] = constant(path, pair.torch, array)
                continue
            if isinstance(pair, Count):
                made[pair.torch] = constant(path, pair.torch, np.zeros((), np.int64))
                continue
            keras = source.view(pair.keras)
            if keras is not None:
                made[pair.torch] = self.parameters.view(
                    path, pair.torch, keras, pair.layout, is_table
                )
        return made.values()

    def parameter(self, pair: WeightPair) -> Value | None:
        """A weight of the Keras layer as a value; None if the layer lacks it."""
        keras = self.layer.view(pair.keras)
        if keras is None:
            return None
        name = self.body.attribute(self.attribute, f"_{pair.torch}")
        view = self.parameters.view(f"{self.body.path}{name}", "", keras, pair.layout, False)
        return self._parameter(name, view)

    def _parameter(self, name: str, view: View) -> Value:
        self.body.layers.setdefault(name, Layer(name, "nn.Parameter", views=(view,)))
        fact = Fact(view.shape, str(view.variable.storage.dtype))
        return self.body.call(name, hint=name, fact=fact)

    def _as_function(self, module: Layer, *args: Any) -> Value:
        """The module written as a function of its weights, one of them a transpose."""
        function = _FUNCTIONS.get(module.op)
        if function is None:
            tied = next(view for view in module.views if view.perm)
            raise self.refuse(
                f"its {tied.role} is the transpose of {tied.variable.name},",
                f"to which {module.op} cannot be tied",
            )
        weights = []
        for view in module.views:
            name = self.body.attribute(module.name, f"_{view.role}")
            weights.append(self._parameter(name, replace(view, role="")))
        return self.call(function, *args, *weights)


def _all_first(body: Body, args: Any) -> bool:
    """Whether every input lies channels first and they are of one rank."""
    facts = [body.facts[value] for value in values_in(args)]
    return all(f.channels_first and f.rank == facts[0].rank for f in facts)


def _number_type(views: Iterable[View]) -> dict[str, Any]:
    """The dtype argument of a module whose weights are not float32."""
    dtypes = {str(view.variable.storage.dtype) for view in views} - {"float32", "int64"}
    return {"dtype": Name(f"torch.{dtypes.pop()}")} if len(dtypes) == 1 else {}
