"""Everywhere in a model: its graphs, its tensors, and the names that nodes take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiesurgeon.rooms.onnx.order import subgraphs


def graphs(model: Any) -> Iterator[Any]:
    """The main graph and all below it, functions left out."""
    yield from _below(model.graph)


def _below(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for _, inner in subgraphs(node):
            yield from _below(inner)


def tensors(model: Any) -> Iterator[Any]:
    """Every TensorProto of a model, those of functions and of training included."""
    for graph in (model.graph, *_training(model)):
        for one in _below(graph):
            yield from one.initializer
            for sparse in one.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            yield from _in_nodes(one.node)
    for function in model.functions:
        yield from _in_nodes(function.node)


def _training(model: Any) -> Iterator[Any]:
    for info in model.training_info:
        yield from (info.initialization, info.algorithm)


def _in_nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def taken_names(model: Any) -> set[str]:
    """All names that a node takes or a graph returns."""
    taken: set[str] = set()
    for graph in graphs(model):
        taken.update(value.name for value in graph.output)
        for node in graph.node:
            taken.update(node.input)
    return taken


def fresh_name(model: Any, wish: str) -> str:
    """`wish`, or `wish_1`, `wish_2`, ... if anything in the model bears that name."""
    used = taken_names(model)
    for graph in graphs(model):
        used.update(_made_in(graph))
        used.update(node.name for node in graph.node)
    name, number = wish, 0
    while name in used:
        number += 1
        name = f"{wish}_{number}"
    return name


def is_made_once(model: Any, name: str) -> bool:
    """True if only one graph has a value of that name; branches may each have their own."""
    return sum(name in set(_made_in(graph)) for graph in graphs(model)) == 1


def _made_in(graph: Any) -> Iterator[str]:
    yield from (tensor.name for tensor in graph.initializer)
    yield from (value.name for value in graph.input)
    for node in graph.node:
        yield from node.output


def rename(graph: Any, old: str, new: str) -> None:
    """Everything in a graph and below that takes a name takes another."""
    for one in _below(graph):
        for node in one.node:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new


def holder_of(model: Any, node: Any) -> Any:
    """The graph that a node stands in."""
    return next(graph for graph in graphs(model) if any(node is one for one in graph.node))


def replace_node(graph: Any, old: Any, new: list[Any]) -> None:
    """Puts nodes in the place of one; the others stay the objects that they are."""
    place = next(at for at, node in enumerate(graph.node) if node is old)
    del graph.node[place]
    for node in reversed(new):
        graph.node.insert(place, node)


def remove_node(graph: Any, old: Any) -> None:
    """Takes a node out."""
    place = next(at for at, node in enumerate(graph.node) if node is old)
    del graph.node[place]


def forget_value(graph: Any, name: str) -> None:
    """Takes out what is said about a value that is no more."""
    for index, value in enumerate(graph.value_info):
        if value.name == name:
            del graph.value_info[index]
            return
