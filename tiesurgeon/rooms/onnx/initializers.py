"""Initializers that come, go and move, with all that only belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tiesurgeon.rooms.onnx.layers import Use
from tiesurgeon.rooms.onnx.places import (
    fresh_name,
    graphs,
    holder_of,
    is_made_once,
    remove_node,
    rename,
    taken_names,
)
from tiesurgeon.rooms.onnx.values import Scope

_MAY_BE_INPUTS = 4  # IR version; before, every initializer had to be listed as an input too


def visible_name(model: Any, source: Use, places: Sequence[Use]) -> str:
    """The name by which every place can take the source, which moves to the main graph if need be.

    A constant becomes an initializer: it may stand after the nodes that are to take it.
    """
    held = source.held
    if held.owner is model.graph:
        return held.name
    if not held.is_constant and all(_is_within(use.scope, held.owner) for use in places):
        return held.name
    around = holder_of(model, held.owner) if held.is_constant else held.owner
    moved = copy_of(held.tensor)
    is_free = is_made_once(model, held.name)
    moved.name = held.name if is_free else fresh_name(model, held.name)
    rename(around, held.name, moved.name)
    if held.is_constant:
        remove_node(around, held.owner)
    else:
        around.initializer.remove(held.tensor)
    model.graph.initializer.append(moved)
    return str(moved.name)


def _is_within(scope: Scope | None, graph: Any) -> bool:
    while scope is not None:
        if scope.graph is graph:
            return True
        scope = scope.outer
    return False


def drop_unused(model: Any, names: Sequence[str]) -> list[str]:
    """Takes out what makes these names, in order, where nothing takes them; returns warnings."""
    words = []
    for name in names:
        if name in taken_names(model):
            continue
        was_input = [graph for graph in graphs(model) if _drop(graph, name)]
        if was_input and model.ir_version >= _MAY_BE_INPUTS:
            words.append(
                f"{name!r} was an input too, so that a caller could replace it; not any more"
            )
    return words


def _drop(graph: Any, name: str) -> bool:
    """True if it was an input of the graph."""
    for node in [node for node in graph.node if name in node.output]:
        remove_node(graph, node)
    inputs = len(graph.input)
    for listed in (graph.initializer, graph.input, graph.value_info):
        for one in [one for one in listed if one.name == name]:
            listed.remove(one)
    for one in [one for one in graph.quantization_annotation if one.tensor_name == name]:
        graph.quantization_annotation.remove(one)
    return len(graph.input) < inputs


def copy_of(message: Any) -> Any:
    """A protobuf message of its own with the same content."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
