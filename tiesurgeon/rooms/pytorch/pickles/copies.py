"""Modules that are used under several names, copied so that one name can be changed alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tiesurgeon.rooms.pytorch.pickles import mappings, modules, scripted
from tiesurgeon.rooms.pytorch.pickles.nodes import Record, Step, walk

_PARTS = ("_parameters", "_buffers", "_modules")


def separate(root: Any, names: list[str]) -> Record:
    """The module at these names below a root, which no other name leads to any more.

    A module that several names share is copied on the way; its parameters stay the same.
    """
    held = _times_held(root)
    node: Record = root
    is_copy = False
    for name in names:
        children = _children(node)
        child = mappings.get(children, name)
        is_copy = is_copy or held[id(child)] > 1
        if is_copy:
            child = copied(child)
            mappings.put(children, name, child)
        node = child
    return node


def copied(module: Record) -> Record:
    """A module of its own, with the same parameters, buffers and children."""
    state = dict(state_of(module))
    for name, value in state.items():
        if name in _PARTS:
            state[name] = _copied_mapping(value)
        elif type(value) is list:
            state[name] = list(value)
    return with_state(module, state)


def with_state(module: Record, state: dict[str, Any]) -> Record:
    """A module like another one, with another `__dict__`."""
    old = state_of(module)
    parts = [_swapped(part, old, state) for part in module.parts]
    steps = [Step(s.opcode, [_swapped(v, old, state) for v in s.values]) for s in module.steps]
    return Record(module.opcode, parts, steps)


def _swapped(node: Any, old: Any, new: Any) -> Any:
    if type(node) is tuple:  # a state beside that of __slots__, or a GraphModule's arguments
        return tuple(new if item is old else item for item in node)
    return new if node is old else node


def _copied_mapping(node: Any) -> Any:
    if type(node) is dict:
        return dict(node)
    return Record(
        node.opcode, list(node.parts), [Step(s.opcode, list(s.values)) for s in node.steps]
    )


def _times_held(root: Any) -> Counter[int]:
    held: Counter[int] = Counter()
    for node in walk(root):
        if modules.state_of(node) is not None or scripted.is_scripted(node):
            held.update(id(child) for _, child in mappings.items(_children(node)))
    return held


def state_of(module: Record) -> dict[str, Any]:
    """The attributes of a module, compiled or not."""
    state = modules.state_of(module)
    return scripted.state_of(module) if state is None else state


def _children(module: Record) -> Any:
    """What holds its children; in a compiled module all attributes together."""
    state = state_of(module)
    return state.get("_modules", state)
