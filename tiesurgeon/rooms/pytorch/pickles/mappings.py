"""Dicts of a pickle, whether plain or objects like OrderedDict, read and changed alike."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Persistent, Record

_DICTS = frozenset({"OrderedDict", "defaultdict", "Counter"})


def global_of(node: Any) -> Global | None:
    """The class or function that an object is made by; None if it is not a name.

    The oldest files keep a module's class together with its source.
    """
    made_by = node.parts[0] if type(node) is Record and node.parts else None
    if type(made_by) is Persistent:
        value = made_by.value
        if type(value) is tuple and len(value) > 1 and value[0] == "module":
            made_by = value[1]
    return made_by if type(made_by) is Global else None


def is_mapping(node: Any) -> bool:
    """True for a dict, an OrderedDict, a defaultdict, a Counter."""
    if type(node) is dict:
        return True
    made_by = global_of(node)
    return made_by is not None and made_by.module == "collections" and made_by.name in _DICTS


def items(node: Any) -> list[tuple[Any, Any]]:
    """Keys and values of a mapping in order; of a key that is set twice the last value."""
    if type(node) is dict:
        return list(node.items())
    found: list[tuple[Any, Any]] = list(_early(node))
    for values in _stepwise(node):
        found += zip(values[::2], values[1::2], strict=True)
    last = {_hashable(key): (key, value) for key, value in found}
    return list(last.values())


def get(node: Any, key: Any) -> Any:
    """The value of a key; None if the mapping (or what should be one) lacks it."""
    if not is_mapping(node):
        return None
    if type(node) is dict:
        return node.get(key)
    return next((value for found, value in items(node) if found == key), None)


def put(node: Any, key: Any, value: Any) -> None:
    """Replaces the value of a key that the mapping has, or of a place in a list."""
    if type(node) in (dict, list):
        node[key] = value
        return
    for pair in _early(node):
        if pair[0] == key:
            pair[1] = value
    for values in _stepwise(node):
        for place in range(0, len(values), 2):
            if values[place] == key:
                values[place + 1] = value


def rekey(node: Any, change: Callable[[Any], Any]) -> None:
    """Gives every key another one; a key that becomes None goes, with its value."""
    if type(node) is dict:
        renamed = [(change(key), value) for key, value in node.items()]
        node.clear()
        node.update((key, value) for key, value in renamed if key is not None)
        return
    pairs = _early(node)
    pairs[:] = [[key, value] for old, value in pairs if (key := change(old)) is not None]
    for values in _stepwise(node):
        kept = zip(values[::2], values[1::2], strict=True)
        renamed = [(change(key), value) for key, value in kept]
        values[:] = [part for pair in renamed if pair[0] is not None for part in pair]


def drop(node: Any, key: Any) -> None:
    """Removes a key."""
    rekey(node, lambda found: None if found == key else found)


def _stepwise(node: Record) -> list[list[Any]]:
    return [step.values for step in node.steps if step.opcode == pickle.SETITEMS]


def _early(node: Record) -> list[Any]:
    """What an OrderedDict of Python 2 is made from: a list of lists of two."""
    arguments = node.parts[1] if len(node.parts) > 1 else ()
    if type(arguments) is tuple and len(arguments) == 1 and type(arguments[0]) is list:
        pairs = arguments[0]
        if all(type(pair) is list and len(pair) == 2 for pair in pairs):
            return pairs
    return []


def _hashable(key: Any) -> Any:
    return key if isinstance(key, (str, int, float, bytes, type(None), Global)) else id(key)
