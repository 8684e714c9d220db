"""The objects of a SavedModel: which variables it holds, what they are called, who shares them.

`saved_model.pb` tells the objects (saved_object_graph.proto), the checkpoint where each has
its numbers (trackable_object_graph.proto). Both are graphs of objects that name each other,
so both are walked together, from the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Storage
from tiesurgeon.rooms.savedmodel import wire
from tiesurgeon.rooms.savedmodel.bundle import Bundle
from tiesurgeon.rooms.savedmodel.wire import Bytes

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_LARGEST_GRAPH = 1 << 26
_MOST_OBJECTS = 1 << 18
_LONGEST_PATH = 512


@dataclass
class Node:
    """One object: its children by name; `name` and `storage` if it is a variable.

    `identifier` is what made it ("_tf_keras_layer"), `metadata` what that left of itself.
    """

    number: int
    children: Mapping[str, int]
    identifier: str = ""
    metadata: str = ""
    name: str | None = None
    is_trainable: bool = False
    storage: Storage | None = None


@dataclass(frozen=True)
class Objects:
    """All objects; number 0 is the root."""

    nodes: list[Node] = field(default_factory=list)

    def child(self, node: Node, name: str) -> Node | None:
        """The object that `node` calls so, or None."""
        number = node.children.get(name)
        return None if number is None else self.nodes[number]

    def listed(self, node: Node, name: str) -> list[Node]:
        """The members of a list that `node` holds: its children "0", "1", ..."""
        found = self.child(node, name)
        if found is None:
            return []
        numbers = [int(key) for key in found.children if key.isdecimal() and len(key) < 9]
        return [self.nodes[found.children[str(number)]] for number in sorted(numbers)]

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every object once, nearest first, with the path by which it is reached.

        UnreadableFile where that is longer than any model's, as paths would fill the memory.
        """
        seen = {0}
        reached = [("", node) for node in self.nodes[:1]]
        for path, node in reached:
            if len(path) > _LONGEST_PATH:
                raise UnreadableFile("its objects are nested more deeply than any model's")
            yield path, node
            for name, number in node.children.items():
                if number not in seen:
                    seen.add(number)
                    reached.append((f"{path}/{name}".lstrip("/"), self.nodes[number]))


def read_objects(saved: Bytes, bundle: Bundle) -> Objects:
    """The objects of a SavedObjectGraph, with the numbers that the checkpoint has of them.

    Raises UnreadableFile where they refer to what is not there.
    """
    if len(saved) > _LARGEST_GRAPH:
        raise UnreadableFile(f"its object graph has {len(saved):,} bytes, so is none")
    nodes = [_node(number, data) for number, data in enumerate(_objects(saved))]
    _refuse_dangling([node.children for node in nodes])
    if GRAPH_KEY not in bundle.entries or not nodes:
        return Objects(nodes)
    stored = [_Stored(data) for data in _objects(Bytes(bundle.string(GRAPH_KEY)))]
    _refuse_dangling([node.children for node in stored])
    if stored:
        _give_numbers(nodes, stored, bundle)
    return Objects(nodes)


def _objects(graph: Bytes) -> Iterator[Bytes]:
    for count, data in enumerate(wire.parts(graph, 1)):
        if count >= _MOST_OBJECTS:
            raise UnreadableFile(f"its object graph has more than {_MOST_OBJECTS:,} objects")
        yield data


class _Stored:
    """TrackableObject: children, and the key of the variable's value, if it is one."""

    def __init__(self, data: Bytes) -> None:
        self.children = dict(map(_reference, wire.parts(data, 1)))
        self.key = ""
        for attribute in wire.parts(data, 2):
            if wire.text(attribute, 1) == _VALUE:
                self.key = wire.text(attribute, 3)


def _node(number: int, data: Bytes) -> Node:
    """SavedObject."""
    node = Node(number, dict(map(_reference, wire.parts(data, 1))))
    for kind, value in wire.fields(data):
        if kind == 4:  # SavedUserObject
            node.identifier, node.metadata = wire.text(value, 1), wire.text(value, 3)
        elif kind == 7:  # SavedVariable
            node.name, node.is_trainable = wire.text(value, 6), bool(wire.number(value, 3))
    return node


def _reference(data: Bytes) -> tuple[str, int]:
    """ObjectReference."""
    return wire.text(data, 2), wire.number(data, 1)


def _refuse_dangling(graph: list[Mapping[str, int]]) -> None:
    for children in graph:
        if any(number >= len(graph) for number in children.values()):
            raise UnreadableFile("its object graph refers to what it does not hold")


def _give_numbers(nodes: list[Node], stored: list[_Stored], bundle: Bundle) -> None:
    met = {0: 0}
    pending = [0]
    for number in pending:
        node, other = nodes[number], stored[met[number]]
        if node.name is not None and other.key:
            node.storage = _storage(other.key, bundle)
        for name, child in node.children.items():
            if child not in met and name in other.children:
                met[child] = other.children[name]
                pending.append(child)


def _storage(key: str, bundle: Bundle) -> Storage | None:
    if key not in bundle.entries:
        raise UnreadableFile(f"variable {key!r} is not in its index; the file is damaged")
    return bundle.storage(key)
