"""A PyTorch graph under construction, and what is known of each of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tiesurgeon.graph import Call, Graph, Layer, Value, values_in
from tiesurgeon.mapping.names import Names
from tiesurgeon.mapping.order import in_order
from tiesurgeon.mapping.torch_words import is_module

Dims = tuple[int | None, ...]


@dataclass(frozen=True)
class Fact:
    """Shape as Keras sees it, dtype, and whether the tensor lies channels first for now."""

    shape: Dims
    dtype: str
    channels_first: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Body:
    """One graph being built: the outer model, or a nested one."""

    path: str = ""
    layers: dict[str, Layer] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    facts: dict[Value, Fact] = field(default_factory=dict)
    # The module state that a value was taken from: `h` of `h[-1]`.
    states: dict[Value, Value] = field(default_factory=dict)
    # Modules by name; those that end up as functions of their weights are not in `layers`.
    modules: dict[str, Layer] = field(default_factory=dict)
    # What is known of the outputs of each nested model.
    nested: dict[str, tuple[Fact, ...]] = field(default_factory=dict)
    names: Names = field(default_factory=Names)
    _attributes: dict[tuple[str, str], str] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)
    _plain: dict[Value, Value] = field(default_factory=dict)
    _first: dict[Value, Value] = field(default_factory=dict)

    def attribute(self, name: str, suffix: str) -> str:
        """The attribute for that part of a layer; the layer's own name without a suffix."""
        if not suffix:
            return name
        if (name, suffix) not in self._attributes:
            self._attributes[name, suffix] = self.names.new(name + suffix)
        return self._attributes[name, suffix]

    def call(
        self,
        layer: str,
        *args: Any,
        hint: str,
        fact: Fact | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Value:
        """One call of a layer added before, or of a function; the fact is the first argument's
        unless given. Further outputs are `Value(result.call, 1)` and on. The call's id is the
        hint, which is how its value may be named, and from the second on a number after a dot.
        """
        if layer not in self.layers:
            if is_module(layer):
                raise ValueError(f"{layer} has not been added")
            self.layers[layer] = Layer(layer, layer)
        count = self._counts[hint] = self._counts.get(hint, 0) + 1
        call = Call(hint if count == 1 else f"{hint}.{count}", layer, args, dict(options or {}))
        self.calls.append(call)
        value = Value(call.id)
        self.facts[value] = fact or self.facts[next(iter(values_in(args)))]
        return value

    def output(self, value: Value, index: int, fact: Fact) -> Value:
        """Another output of the call that gave `value`."""
        other = Value(value.call, index)
        self.facts[other] = fact
        return other

    def plain(self, value: Value, hint: str) -> Value:
        """The value in Keras' own layout."""
        fact = self.facts[value]
        if not fact.channels_first:
            return value
        if value not in self._plain:
            axes = (0, *range(2, fact.rank), 1)
            plain = replace(fact, channels_first=False)
            moved = self.call(".permute", value, *axes, hint=hint, fact=plain)
            self._plain[value], self._first[moved] = moved, value
        return self._plain[value]

    def first(self, value: Value, hint: str) -> Value:
        """The value, which Keras has channels last, with channels first."""
        fact = self.facts[value]
        if fact.channels_first:
            return value
        if value not in self._first:
            axes = (0, fact.rank - 1, *range(1, fact.rank - 1))
            first = replace(fact, channels_first=True)
            moved = self.call(".permute", value, *axes, hint=hint, fact=first)
            self._first[value], self._plain[moved] = moved, value
        return self._first[value]

    def graph(
        self, name: str, inputs: Sequence[Value], outputs: Any, config: dict[str, Any]
    ) -> Graph:
        """The finished graph, its calls and layers in the order in which they are used."""
        ends = [value.call for value in (*inputs, *values_in(outputs))]
        calls = in_order({call.id: call for call in self.calls}, ends, self._in_turn)
        layers = dict.fromkeys(call.layer for call in calls)
        return Graph(
            name,
            "nn.Module",
            tuple(self.layers[layer] for layer in layers),
            calls,
            tuple(inputs),
            outputs,
            config,
        )

    def _in_turn(self, call: Call) -> list[Value]:
        """What a call takes, in the order to be computed: the main argument of a module last,
        so that its chain of layers is not interrupted by the mask or the states."""
        values = list(call.inputs)
        return values[::-1] if is_module(self.layers[call.layer].op) else values
