"""Ties -> layers that stock Keras can share. Each form is chosen by what the views say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Graph, Layer, Value, Variable, View, map_values, values_in
from tiesurgeon.rewiring import Rewiring
from tiesurgeon.rooms.keras.inline import inline
from tiesurgeon.rooms.keras.tied import head, transposed
from tiesurgeon.rooms.keras.tied.parts import built_in

# What may differ between two layers that become one: none of it changes the outputs.
_IGNORED = frozenset({"name", "seed", "build_config", "input_length", "shared_object_id"})


@dataclass(frozen=True)
class Use:
    """A top-level layer, and the layer inside it (or itself), that sees a shared variable."""

    outer: str
    layer: Layer
    view: View


def realise(graph: Graph) -> Graph:
    """The same model with every tie between layers expressed as a shared layer.

    Raises TieRefused where no built-in layer can express it.
    """
    graph = _realise_bodies(graph)
    shared = _shared(graph)
    if not shared:
        return graph
    nested = {use.outer for uses in shared.values() for use in uses if graph.layer(use.outer).body}
    if nested:
        return realise(inline(graph, nested))
    rewiring = Rewiring(graph)
    for group in _groups(shared.values()):
        _apply(rewiring, group)
    rewiring.drop_unused()
    return rewiring.graph()


def _realise_bodies(graph: Graph) -> Graph:
    changed = {
        layer.name: replace(layer, body=realise(layer.body))
        for layer in graph.layers
        if layer.body is not None
    }
    return graph.with_layers(changed)


def _shared(graph: Graph) -> dict[Variable, list[Use]]:
    uses: dict[Variable, list[Use]] = {}
    for outer in graph.layers:
        for layer, view in _views(outer):
            uses.setdefault(view.variable, []).append(Use(outer.name, layer, view))
    return {
        variable: found for variable, found in uses.items() if len({use.outer for use in found}) > 1
    }


def _views(layer: Layer) -> Iterator[tuple[Layer, View]]:
    for view in layer.views:
        yield layer, view
    for inner in layer.inner:
        yield from _views(inner)
    if layer.body is not None:
        for nested in layer.body.layers:
            yield from _views(nested)


def _groups(shared: Iterable[list[Use]]) -> list[list[Use]]:
    """Uses joined where they have a layer in common: what is tied together is written together."""
    groups: list[list[Use]] = []
    for uses in shared:
        names = {use.outer for use in uses}
        touching = [group for group in groups if names & {use.outer for use in group}]
        for group in touching:
            groups.remove(group)
        groups.append([use for group in touching for use in group] + uses)
    return groups


def _apply(rewiring: Rewiring, group: list[Use]) -> None:
    layers = {use.outer: use.layer for use in group}
    names = ", ".join(layers)
    operations = {layer.op for layer in layers.values()}
    if _is_one_layer(rewiring, group):
        merge(rewiring, list(layers))
    elif operations in ({"Embedding"}, {"Embedding", "Dense"}):
        tables = [name for name, layer in layers.items() if layer.op == "Embedding"]
        table = merge(rewiring, tables) if len(tables) > 1 else tables[0]
        heads = {name: layer for name, layer in layers.items() if layer.op == "Dense"}
        if heads:
            head.write(rewiring, table, heads)
    elif operations == {"Dense"}:
        transposed.write(rewiring, {use.outer: (use.layer, use.view) for use in group})
    else:
        raise TieRefused(
            f"{names}: no built-in Keras layer can be {' and '.join(sorted(operations))} over one "
            "variable, so this tie cannot be saved in a Keras file"
        )


def _is_one_layer(rewiring: Rewiring, group: list[Use]) -> bool:
    """True if the layers differ in nothing but their names: same class, config, variables."""
    outers = {use.outer for use in group}
    first, *others = (rewiring.layers[name] for name in outers)
    return all(_same(first, other) for other in others)


def _same(a: Layer, b: Layer) -> bool:
    return (
        a.op == b.op
        and _essence(a.config) == _essence(b.config)
        and [(v.role, v.variable, v.perm) for v in a.all_views()]
        == [(v.role, v.variable, v.perm) for v in b.all_views()]
    )


def _essence(config: Any) -> Any:
    """A config without names and initializers."""
    if isinstance(config, dict):
        return {
            key: _essence(value)
            for key, value in config.items()
            if key not in _IGNORED and not key.endswith("_initializer")
        }
    return config


def merge(rewiring: Rewiring, names: list[str]) -> str:
    """Lets the first of the layers do the work of all; returns its name.

    Raises TieRefused where they are configured differently.
    """
    kept = rewiring.layers[names[0]]
    for name in names[1:]:
        other = rewiring.layers.pop(name)
        if _essence(kept.config) != _essence(other.config):
            raise TieRefused(
                f"{kept.name!r} and {name!r} cannot become one layer: {_difference(kept, other)}; "
                "make them agree, or leave them untied"
            )
        for call in [call for call in rewiring.calls.values() if call.layer == name]:
            del rewiring.calls[call.id]
            new = rewiring.add(kept, *call.args, kwargs=call.kwargs)
            for old in _results(rewiring, call.id):
                _replace(rewiring, old, Value(new.call, old.index), name)
    return kept.name


def _results(rewiring: Rewiring, call_id: str) -> set[Value]:
    taken = [value for call in rewiring.calls.values() for value in call.inputs]
    taken += values_in(rewiring.outputs)
    return {value for value in taken if value.call == call_id}


def _replace(rewiring: Rewiring, old: Value, new: Value, name: str) -> None:
    outputs, is_output = rewiring.outputs, rewiring.is_output(old)
    rewiring.redirect(old, new)
    if is_output:  # outputs are known by the layer they come from: losses are keyed by it
        named = rewiring.add(built_in("Identity", rewiring.fresh(name)), new)
        rewiring.outputs = map_values(outputs, lambda v: named if v == old else v)


def _difference(a: Layer, b: Layer) -> str:
    first, second = _essence(a.config), _essence(b.config)
    key = next(k for k in {**first, **second} if first.get(k) != second.get(k))
    return f"{key} is {first.get(key)!r} in one and {second.get(key)!r} in the other"
