"""One pass over a Keras graph that makes mask propagation explicit.

Keras hangs a mask on a tensor and passes it along behind the scenes. Here every layer that
uses a mask gets it as an argument, computed by calls in the graph; masks that nobody uses
leave no trace. A nested model gets the masks that it uses as further inputs, and returns
those that are used outside as further outputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tiesurgeon.errors import UnmappedLayer
from tiesurgeon.graph import Call, Graph, Layer, Value, values_in
from tiesurgeon.mapping.mask_recognition import recognise
from tiesurgeon.mapping.mask_rules import ATTENTION, Mask, output_masks, uses_of
from tiesurgeon.mapping.names import Names
from tiesurgeon.mapping.order import in_order


def explicit(graph: Graph) -> Graph:
    """The same graph with masks as arguments of the layers that use them."""
    return _Rewriting(_Level(graph, frozenset())).graph()


def propagated(graph: Graph) -> dict[Value, Mask | None]:
    """The mask that Keras hangs on each value of this level; values not listed have none."""
    return _Level(graph, frozenset()).masks


class _Level:
    """Which values of one graph carry a mask, and which calls use one."""

    def __init__(self, graph: Graph, masked: frozenset[int]) -> None:
        self.graph = graph
        self.masks: dict[Value, Mask | None] = {}
        self.uses: dict[str, dict[str, Any]] = {}
        self.nested_calls: dict[str, list[tuple[Call, list[Mask | None]]]] = {}
        for number, value in enumerate(values_in(graph.inputs)):
            self.masks[value] = Mask("input", (number,)) if number in masked else None
        for call in graph.calls:
            self._follow(call, graph.layer(call.layer))

    def output(self, number: int) -> Mask | None:
        """The mask of one of the graph's outputs."""
        return self.masks.get(list(values_in(self.graph.outputs))[number])

    def _follow(self, call: Call, layer: Layer) -> None:
        if layer.body is not None:
            found = self._through_nested(call, layer.body)
        else:
            self.uses[call.id] = self._stated(call) or uses_of(layer, call, self.masks)
            found = output_masks(layer, call, self._first_masks(call))
        for index, mask in enumerate(found):
            self.masks.setdefault(Value(call.id, index), mask)
        if layer.op in ATTENTION:  # it deletes the masks of its arguments
            self.masks.update(dict.fromkeys(call.inputs))
        if layer.op == "TimeDistributed":
            self._check_time_distributed(call, layer)

    def _stated(self, call: Call) -> dict[str, Mask]:
        """The mask arguments that the file spells out."""
        return {
            name: recognise(self.graph, value)
            for name, value in call.kwargs.items()
            if name == "mask" and isinstance(value, Value)
        }

    def _first_masks(self, call: Call) -> list[Mask | None]:
        given = call.kwargs.get("mask")
        if isinstance(given, Value):
            return [recognise(self.graph, given)]
        return [self.masks.get(value) for value in values_in(call.args[:1])]

    def _through_nested(self, call: Call, body: Graph) -> list[Mask | None]:
        arguments = [self.masks.get(value) for value in values_in(call.args)]
        self.nested_calls.setdefault(call.layer, []).append((call, arguments))
        inner = _Level(body, _numbers(arguments))
        outputs: list[Mask | None] = []
        for number, value in enumerate(values_in(body.outputs)):
            mask = inner.masks.get(value)
            if mask is not None and mask.kind == "input":
                outputs.append(arguments[mask.parts[0]])
            else:
                outputs.append(None if mask is None else Mask("nested", (call.id, number)))
        return outputs

    def _check_time_distributed(self, call: Call, layer: Layer) -> None:
        body = layer.inner[0].body
        if body is None or self.masks.get(call.inputs[0]) is None:
            return
        if _Rewriting(_Level(body, frozenset((0,)))).uses_inputs():
            raise UnmappedLayer(
                f"layer '{layer.name}' (TimeDistributed) hands a mask to the model it wraps, "
                f"which has no PyTorch counterpart yet"
            )


class _Rewriting:
    """The calls that compute the masks of one graph, made when something asks for them."""

    def __init__(self, level: _Level, wanted: Iterable[int] = ()) -> None:
        self.level = level
        self._calls: dict[str, Call] = {call.id: call for call in level.graph.calls}
        self._layers: dict[str, Layer] = dict(level.graph.by_name)
        self._names = Names(frozenset(self._calls) | frozenset(self._layers))
        self._made: dict[Mask, Value] = {}
        self.inputs: dict[int, Value] = {}
        self._wanted_inside: dict[str, list[int]] = {}
        self._fill_in()
        self._outputs = [self._value(mask) for mask in map(level.output, wanted) if mask]
        self._rewrite_nested()

    def uses_inputs(self) -> bool:
        """Whether a mask of an input is used."""
        return bool(self.inputs)

    def graph(self) -> Graph:
        """The graph with its masks explicit."""
        graph = self.level.graph
        inputs, outputs = graph.inputs, graph.outputs
        if self.inputs:
            inputs = [*values_in(inputs), *self.inputs.values()]
        if self._outputs:
            outputs = [*values_in(outputs), *self._outputs]
        calls = in_order(self._calls, self._calls)
        layers = tuple(self._layers.values())
        return replace(graph, layers=layers, calls=calls, inputs=inputs, outputs=outputs)

    def _fill_in(self) -> None:
        for call_id, uses in self.level.uses.items():
            if uses:
                call = self._calls[call_id]
                masks = {name: self._argument(mask) for name, mask in uses.items()}
                self._calls[call_id] = replace(call, kwargs={**call.kwargs, **masks})
        for name, layer in self._layers.items():
            self._layers[name] = _with_explicit_inner(layer)

    def _argument(self, mask: Any) -> Any:
        if isinstance(mask, list):
            return [self._argument(item) for item in mask]
        return None if mask is None else self._value(mask)

    def _value(self, mask: Mask) -> Value:
        if mask not in self._made:
            self._made[mask] = self._make(mask)
        return self._made[mask]

    def _make(self, mask: Mask) -> Value:
        parts = mask.parts
        if mask.kind == "given":
            value: Value = parts[0]
            return value
        if mask.kind == "input":
            self.inputs[parts[0]] = self._call("InputLayer", module="keras.layers")
            return self.inputs[parts[0]]
        if mask.kind == "ids":
            return self._call("NotEqual", parts[0], 0)
        if mask.kind == "steps":
            differs = self._call("NotEqual", *parts)
            return self._call("Any", differs, axis=-1)
        if mask.kind == "ones":
            return self._call("EveryStep", parts[0])
        if mask.kind == "nested":
            return self._from_nested(*parts)
        values = [self._value(part) for part in parts]
        if mask.kind == "joined":
            return self._call("Concatenate", values, axis=1)
        result = values[0]
        for other in values[1:]:
            result = self._call("LogicalOr", result, other)
        return result

    def _call(
        self, op: str, *args: Any, module: str = "keras.src.ops.numpy", **config: Any
    ) -> Value:
        name = self._names.new("mask")
        if op == "InputLayer":
            config = {"batch_shape": (None, None), "dtype": "bool"}
        self._layers[name] = Layer(name, op, config, entry={"module": module})
        self._calls[name] = Call(name, name, args)
        return Value(name)

    # Nested models: each is rewritten once for all of its calls.

    def _from_nested(self, call_id: str, number: int) -> Value:
        call = self._calls[call_id]
        wanted = self._wanted_inside.setdefault(call.layer, [])
        if number not in wanted:
            wanted.append(number)
        body = self.level.graph.layer(call.layer).body
        count = len(list(values_in(body.outputs))) if body else 0
        return Value(call_id, count + wanted.index(number))

    def _rewrite_nested(self) -> None:
        """Later models first: what they use may be asked of earlier ones."""
        done: dict[str, int] = {}
        pending = list(reversed(self.level.nested_calls))
        while pending:
            name = pending.pop(0)
            wanted = self._wanted_inside.get(name, [])
            done[name] = len(wanted)
            self._rewrite_one(name, wanted)
            for other, count in done.items():
                if len(self._wanted_inside.get(other, [])) > count and other not in pending:
                    pending.append(other)

    def _rewrite_one(self, name: str, wanted: list[int]) -> None:
        layer = self.level.graph.layer(name)
        calls = self.level.nested_calls[name]
        assert layer.body is not None
        masked = frozenset().union(*(_numbers(masks) for _, masks in calls))
        inner = _Rewriting(_Level(layer.body, masked), wanted)
        self._layers[name] = replace(layer, body=inner.graph())
        for call, masks in calls:
            arguments = list(values_in(call.args))
            extra = [
                self._value(masks[number] or Mask("ones", (arguments[number],)))
                for number in inner.inputs
            ]
            if extra:
                self._calls[call.id] = replace(call, args=(*arguments, *extra))


def _numbers(masks: Iterable[Mask | None]) -> frozenset[int]:
    return frozenset(number for number, mask in enumerate(masks) if mask is not None)


def _with_explicit_inner(layer: Layer) -> Layer:
    """A wrapped model is a graph of its own, into which no mask comes from outside."""
    inner = tuple(_with_explicit_inner(item) for item in layer.inner)
    if layer.inner and any(item.body is not None for item in layer.inner):
        inner = tuple(
            replace(item, body=explicit(item.body)) if item.body is not None else item
            for item in inner
        )
    return replace(layer, inner=inner) if inner else layer
