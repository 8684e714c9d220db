"""Nodes in the order in which they can run, which a file need not keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tiesurgeon.errors import UnreadableFile


def ordered(nodes: Sequence[Any], is_known: Callable[[str], bool]) -> list[Any]:
    """The nodes of one graph, each after those that make its inputs.

    `is_known` tells inputs, initializers and the names of outer graphs. Raises
    UnreadableFile for a cycle, a name made twice, and one that nothing makes.
    """
    makers: dict[str, int] = {}
    for number, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in makers:
                raise UnreadableFile(f"{name!r} is made by two nodes: {called(node)!r} is one")
            makers[name] = number
    needs = [{makers.get(name, -1) for name in _taken(node, is_known)} for node in nodes]
    for number, need in enumerate(needs):
        if -1 in need:
            missing = next(n for n in _taken(nodes[number], is_known) if n not in makers)
            raise UnreadableFile(
                f"node {called(nodes[number])!r} takes {missing!r}, which nothing in it makes"
            )
    if all(at < number for number, need in enumerate(needs) for at in need):
        return list(nodes)
    return [nodes[number] for number in _sorted(needs, nodes)]


def _sorted(needs: Sequence[set[int]], nodes: Sequence[Any]) -> Iterator[int]:
    after: dict[int, list[int]] = {}
    for number, need in enumerate(needs):
        for at in need:
            after.setdefault(at, []).append(number)
    missing = [len(need) for need in needs]
    ready = [number for number, count in enumerate(missing) if not count]
    done = 0
    for number in ready:  # it grows on the way
        yield number
        done += 1
        for later in after.get(number, ()):
            missing[later] -= 1
            if not missing[later]:
                ready.append(later)
    if done < len(nodes):
        stuck = next(node for node, count in zip(nodes, missing, strict=True) if count)
        raise UnreadableFile(f"its graph has a cycle through node {called(stuck)!r}")


def called(node: Any) -> str:
    """The node's name, or that of the first value it makes, which is unique in its graph."""
    return str(node.name or next(filter(None, node.output), node.op_type))


def subgraphs(node: Any) -> Iterator[tuple[str, Any]]:
    """The graphs that the node runs, with the names of their attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        for number, graph in enumerate(attribute.graphs):
            yield f"{attribute.name}_{number}", graph


def _taken(node: Any, is_known: Callable[[str], bool]) -> Iterator[str]:
    """Names the node needs from its own graph: its inputs, and what its subgraphs capture."""
    for name in filter(None, node.input):
        if not is_known(name):
            yield name
    for _, graph in subgraphs(node):
        yield from (name for name in captured(graph) if not is_known(name))


def captured(graph: Any) -> Iterator[str]:
    """Names that a subgraph takes from the graphs around it, each once."""
    own = {value.name for value in graph.input}
    own |= {tensor.name for tensor in graph.initializer}
    own |= {tensor.values.name for tensor in graph.sparse_initializer}
    own |= {name for node in graph.node for name in node.output}
    taken: dict[str, None] = {}
    for node in graph.node:
        for name in filter(None, node.input):
            taken.setdefault(name)
        for _, inner in subgraphs(node):
            taken.update(dict.fromkeys(captured(inner)))
    taken.update(dict.fromkeys(value.name for value in graph.output))
    return (name for name in taken if name not in own)
