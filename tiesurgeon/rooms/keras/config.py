"""Keras 3 model config <-> `Graph` without weights.

`skeleton` reads what `dialects.modernise` returns; `serialise` is its inverse, and adds
what stock Keras needs to reload a graph from any of its formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeGuard

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Call, Graph, Layer, Value, map_values

MODEL_OPS = frozenset({"Functional", "Sequential"})
_ENTRY_KEYS = ("module", "registered_name", "build_config", "dialect", "shared_object_id")
_SEQUENTIAL_ONLY = ("dtype", "build_input_shape")
_MODULES = {
    "Functional": "keras.src.models.functional",
    "Sequential": "keras.src.models.sequential",
}


def skeleton(config: Mapping[str, Any]) -> Graph:
    """The graph of a model config in the newest dialect; layers have no views yet.

    Raises UnreadableFile where the calls refer to what is not there.
    """
    body = dict(config["config"])
    name, op = str(body.get("name", config["class_name"])), str(config["class_name"])
    entries = body.pop("layers", None)
    if not isinstance(entries, list):
        return Graph(name, op, (), config=body)
    layers = tuple(_layer(entry) for entry in entries)
    if op == "Sequential":
        return _chain(name, layers, body)
    wiring = _Wiring(layers, entries)
    return Graph(
        name,
        op,
        layers,
        wiring.ordered_calls(),
        wiring.values(body.pop("input_layers", [])),
        wiring.values(body.pop("output_layers", []), of_outputs=True),
        body,
    )


def _layer(entry: Mapping[str, Any]) -> Layer:
    config = entry["config"] if isinstance(entry.get("config"), Mapping) else {}
    name = str(entry.get("name") or config.get("name") or entry["class_name"])
    op = str(entry["class_name"])
    kept = {key: entry[key] for key in _ENTRY_KEYS if key in entry}
    if isinstance(config.get("layers"), list):
        return Layer(name, op, {}, body=skeleton(entry), entry=kept)
    return Layer(name, op, config, inner=_wrapped(op, config), entry=kept)


def _wrapped(op: str, config: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers a wrapper holds, in the order in which it holds their weights."""
    cells = config.get("cells") if op == "StackedRNNCells" else None
    if isinstance(cells, list):
        return tuple(_layer(cell) for cell in cells if _is_layer(cell))
    inner = config.get("cell") if op == "RNN" else config.get("layer")
    if not _is_layer(inner):
        return ()
    first = _layer(inner)
    if op != "Bidirectional":
        return (first,)
    backward = config.get("backward_layer")
    second = _layer(backward) if _is_layer(backward) else _turned(first)
    return (_directed(first, "forward"), _directed(second, "backward"))


def _turned(layer: Layer) -> Layer:
    """The backward half where the config does not state it, as Keras 1 and 2 leave it out."""
    go_backwards = not layer.config.get("go_backwards", False)
    return replace(layer, config={**layer.config, "go_backwards": go_backwards})


def _directed(layer: Layer, direction: str) -> Layer:
    # Bidirectional names its two copies so (keras/src/layers/rnn/bidirectional.py).
    stem = layer.name.removeprefix("forward_").removeprefix("backward_")
    # Both are copies, so neither is the layer object that the config numbers.
    entry = {key: value for key, value in layer.entry.items() if key != "shared_object_id"}
    return replace(layer, name=f"{direction}_{stem}", entry=entry)


def _is_layer(entry: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(entry, Mapping) and isinstance(entry.get("config"), Mapping)


def _chain(name: str, layers: tuple[Layer, ...], body: dict[str, Any]) -> Graph:
    if not layers or layers[0].op != "InputLayer":
        return Graph(name, "Sequential", layers, config=body)  # its input was never seen
    calls = [Call(layers[0].name, layers[0].name)]
    for layer in layers[1:]:
        calls.append(Call(layer.name, layer.name, (Value(calls[-1].id),)))
    ends = Value(calls[0].id), Value(calls[-1].id)
    return Graph(name, "Sequential", layers, tuple(calls), *ends, config=body)


class _Wiring:
    """Turns inbound nodes, which refer to each other freely, into ordered calls.

    Dicts get their keys sorted, which is the order in which Keras numbers what they hold.
    """

    def __init__(self, layers: tuple[Layer, ...], entries: list[Any]) -> None:
        self.by_name = {layer.name: layer for layer in layers}
        self.calls: dict[str, Call] = {}
        for layer, entry in zip(layers, entries, strict=True):
            nodes = entry.get("inbound_nodes") or [{"args": [], "kwargs": {}}]
            for index, node in enumerate(nodes):
                call_id = call_name(layer.name, index)
                args, kwargs = self._tensors(node["args"]), self._tensors(node["kwargs"])
                self.calls[call_id] = Call(call_id, layer.name, tuple(args), kwargs)

    def _tensors(self, data: Any) -> Any:
        if isinstance(data, Mapping):
            if data.get("class_name") == "__keras_tensor__":
                return self._value(*data["config"]["keras_history"])
            return {key: self._tensors(data[key]) for key in sorted(data)}
        if isinstance(data, list):
            return [self._tensors(item) for item in data]
        return data

    def _value(self, name: Any, node: Any, index: Any) -> Value:
        if name not in self.by_name:
            raise UnreadableFile(f"the model config connects to a layer {name!r} it does not hold")
        return Value(call_name(str(name), int(node)), int(index))

    def values(self, data: Any, *, of_outputs: bool = False) -> Any:
        """`input_layers` or `output_layers`: nested [layer, node, tensor]."""
        if isinstance(data, Mapping):
            return {key: self.values(data[key], of_outputs=of_outputs) for key in sorted(data)}
        if isinstance(data, list) and len(data) == 3 and isinstance(data[0], str):
            name, node, index = data
            # Keras counts one node more for nested Functional models, in outputs only
            # (functional.py, get_tensor_config: "kept_nodes = 1").
            if of_outputs and name in self.by_name and self.by_name[name].op == "Functional":
                node = max(int(node) - 1, 0)
            return self._value(name, node, index)
        if isinstance(data, list):
            return [self.values(item, of_outputs=of_outputs) for item in data]
        raise UnreadableFile(f"the model config holds {data!r} where a tensor was expected")

    def ordered_calls(self) -> tuple[Call, ...]:
        """All calls, each after those it depends on."""
        ordered: dict[str, Call] = {}
        open_calls: set[str] = set()
        pending = list(reversed(self.calls))  # a stack: real models are deep
        while pending:
            call_id = pending.pop()
            if call_id in ordered:
                continue
            call = self.calls.get(call_id)
            needed = [] if call is None else [v.call for v in call.inputs if v.call not in ordered]
            if call is None or (needed and call_id in open_calls):
                raise UnreadableFile(f"the model config has a loop or a loose end at {call_id}")
            if needed:
                open_calls.add(call_id)
                pending += [call_id, *reversed(needed)]
            else:
                ordered[call_id] = call
        return tuple(ordered.values())


def call_name(layer: str, index: int) -> str:
    """The id of a layer's call number `index`."""
    return layer if index == 0 else f"{layer}:{index}"


def serialise(graph: Graph) -> dict[str, Any]:
    """The config that stock Keras 3 rebuilds the graph from.

    The inverse of `skeleton`; weights are not part of it.
    """
    body = {"name": graph.name, "trainable": True, **graph.config}
    if graph.op == "Sequential":
        body["layers"] = [_entry(layer) for layer in graph.layers]
    else:
        nodes = _Nodes(graph)
        for key in _SEQUENTIAL_ONLY:  # what is left of a Sequential that was rewired
            body.pop(key, None)
        body["layers"] = [
            {**_entry(layer), "name": layer.name, "inbound_nodes": list(nodes.of(layer))}
            for layer in graph.layers
        ]
        body["input_layers"] = map_values(graph.inputs, nodes.input_history)
        body["output_layers"] = map_values(graph.outputs, nodes.output_history)
    return {
        "module": _MODULES.get(graph.op, "builtins"),
        "class_name": graph.op,
        "config": body,
        "registered_name": graph.op if graph.op in _MODULES else None,
    }


def _entry(layer: Layer) -> dict[str, Any]:
    if layer.body is not None:
        nested = serialise(layer.body)
        nested["config"] = {**nested["config"], "name": layer.name}
        return nested
    return {
        "module": layer.entry.get("module", "keras.layers"),
        "class_name": layer.op,
        "config": {**layer.config, **_rewrapped(layer)},
        "registered_name": layer.entry.get("registered_name"),
        **({"build_config": layer.entry["build_config"]} if "build_config" in layer.entry else {}),
    }


def _rewrapped(layer: Layer) -> dict[str, Any]:
    """The entries of wrapped layers, as the graph has them now, in a wrapper's config."""
    if layer.op == "StackedRNNCells":
        return {"cells": [_entry(cell) for cell in layer.inner]} if layer.inner else {}
    keys = ("cell",) if layer.op == "RNN" else ("layer", "backward_layer")
    found: dict[str, Any] = {}
    for key, inner in zip(keys, layer.inner, strict=False):
        stored = layer.config.get(key)
        if _is_layer(stored):
            entry = _entry(inner)
            name = stored["config"].get("name")  # Bidirectional renames its copies itself
            found[key] = {**entry, "config": {**entry["config"], "name": name or inner.name}}
    return found


class _Nodes:
    """Writes values as Keras' [layer, node, tensor]."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.number: dict[str, int] = {}
        counts: dict[str, int] = {}
        for call in graph.calls:
            self.number[call.id] = counts.get(call.layer, 0)
            counts[call.layer] = self.number[call.id] + 1

    def of(self, layer: Layer) -> Iterator[dict[str, Any]]:
        for call in self.graph.calls_of(layer.name):
            if layer.op != "InputLayer":
                yield {
                    "args": map_values(list(call.args), self._tensor),
                    "kwargs": map_values(dict(call.kwargs), self._tensor),
                }

    def _history(self, value: Value) -> list[Any]:
        layer = self.graph.call_by_id[value.call].layer
        return [layer, self.number[value.call], value.index]

    def _tensor(self, value: Value) -> dict[str, Any]:
        # Keras reads only the history; shape and dtype must merely be there.
        keras_tensor = {"shape": [], "dtype": "float32", "keras_history": self._history(value)}
        return {"class_name": "__keras_tensor__", "config": keras_tensor}

    input_history = _history

    def output_history(self, value: Value) -> list[Any]:
        layer, node, index = self._history(value)
        nested = self.graph.layer(layer).op == "Functional"
        return [layer, node + 1 if nested else node, index]


def freeze_below(graph: Graph, *, frozen: bool = False) -> Graph:
    """The graph with everything inside a frozen layer frozen by its own word, as Keras 3 has it.

    In Keras 2 a layer was trained only if all around it were trainable too.
    """
    return replace(graph, layers=tuple(_frozen(layer, frozen=frozen) for layer in graph.layers))


def _frozen(layer: Layer, *, frozen: bool) -> Layer:
    is_input = layer.op == "InputLayer"
    config = {**layer.config, "trainable": False} if frozen and not is_input else layer.config
    below = not config.get("trainable", True)
    body = layer.body
    if body is not None:
        below = below or not body.config.get("trainable", True)
        body = freeze_below(body, frozen=below)
    inner = tuple(_frozen(lay, frozen=below) for lay in layer.inner)
    return replace(layer, config=config if body is None else layer.config, body=body, inner=inner)
