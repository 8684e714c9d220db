"""What a pickle becomes when nothing of it is run: an inert tree.

Lists, dicts, tuples, strings and numbers are themselves, so that what is one object in the
pickle is one object here. Whatever would be imported, called or filled is a node of this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Persistent:
    """What the file keeps outside of the pickle; in PyTorch's files a storage."""

    value: Any


@dataclass(eq=False, slots=True)
class Step:
    """What is done to an object after it was made: an opcode of pickle, and its operands."""

    opcode: bytes
    values: list[Any]


@dataclass(eq=False, slots=True)
class Record:
    """An object as the pickle describes it: an opcode that makes it, its operands, then steps.

    The operands of REDUCE are a callable and its arguments, those of NEWOBJ a class and its
    arguments, those of a set its members.
    """

    opcode: bytes
    parts: list[Any]
    steps: list[Step] = field(default_factory=list)


class ByteString(bytes):
    """A string of Python 2 that is no text."""


def children(node: Any) -> Iterable[Any]:
    """The nodes right below one, in the order of the pickle."""
    if type(node) is Record:
        return (*node.parts, *(value for step in node.steps for value in step.values))
    if type(node) in (list, tuple):
        children: Iterable[Any] = node
        return children
    if type(node) is dict:
        return (part for item in node.items() for part in item)
    if type(node) is Persistent:
        return (node.value,)
    return ()


_NODES = frozenset({Record, Persistent, Global, list, tuple, dict})


def walk(root: Any) -> Iterator[Any]:
    """Every object below a root once, by identity, in order; no strings and numbers."""
    seen = {id(root)}
    left = [root]
    while left:
        node = left.pop()
        yield node
        fresh = []
        for child in children(node):
            if type(child) in _NODES and id(child) not in seen:
                seen.add(id(child))
                fresh.append(child)
        left.extend(reversed(fresh))


def replace_all(root: Any, replacements: Mapping[int, Any]) -> None:
    """Puts other objects in place of some (by id), wherever below the root they are held.

    Keys of dicts are replaced too. Tuples are made anew; the root itself stays.
    """
    remade = dict(replacements)
    for node in list(walk(root)):
        if type(node) is Record:
            node.parts[:] = [_remade(part, remade) for part in node.parts]
            for step in node.steps:
                step.values[:] = [_remade(value, remade) for value in step.values]
        elif type(node) is list:
            node[:] = [_remade(item, remade) for item in node]
        elif type(node) is dict:
            items = [(_remade(key, remade), _remade(node[key], remade)) for key in node]
            node.clear()
            node.update(items)


def _remade(node: Any, remade: dict[int, Any]) -> Any:
    if id(node) in remade:
        return remade[id(node)]
    if type(node) is not tuple:
        return node
    items = tuple(_remade(item, remade) for item in node)
    unchanged = all(new is old for new, old in zip(items, node, strict=True))
    remade[id(node)] = node if unchanged else items
    return remade[id(node)]
