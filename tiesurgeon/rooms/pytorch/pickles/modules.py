"""Modules of PyTorch among the records of a pickle: their state, children and plain attributes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

from tiesurgeon.rooms.pytorch.pickles import mappings
from tiesurgeon.rooms.pytorch.pickles.nodes import Record

GRAPH_MODULE = ("torch.fx.graph_module", "reduce_graph_module")
_COMPILED = ("torch._dynamo.eval_frame", "OptimizedModule")
_PLAIN = (str, int, float, bool, type(None))
_LONGEST = 16  # items of a list that is an attribute


def state_of(node: Any) -> dict[str, Any] | None:
    """The `__dict__` of a module; None if the node is none.

    A GraphModule of torch.fx is made from its state, what torch.compile gives from the module
    that it compiles; other modules are filled with their state.
    """
    if type(node) is not Record:
        return None
    if _is_made_by(node, _COMPILED):
        return {"_parameters": {}, "_buffers": {}, "_modules": {"_orig_mod": node.parts[1][0]}}
    if is_graph_module(node):
        state = node.parts[1][0]
    else:
        state = next((s.values[0] for s in node.steps if s.opcode == pickle.BUILD), None)
    if type(state) is tuple and state:  # the second is the state of __slots__
        state = state[0]
    if type(state) is dict and all(
        mappings.is_mapping(state.get(part)) for part in ("_parameters", "_buffers", "_modules")
    ):
        return state
    return None


def is_graph_module(node: Any) -> bool:
    """True for a GraphModule of torch.fx."""
    return _is_made_by(node, GRAPH_MODULE)


def _is_made_by(node: Any, function: tuple[str, str]) -> bool:
    """True for a call of that function with two arguments."""
    made_by = mappings.global_of(node)
    if made_by is None or (made_by.module, made_by.name) != function:
        return False
    arguments = node.parts[1]
    return type(arguments) is tuple and len(arguments) == 2


def class_of(node: Record) -> str:
    """The bare name of a module's class."""
    made_by = mappings.global_of(node)
    if made_by is None:
        return ""
    return "GraphModule" if is_graph_module(node) else made_by.name.rpartition(".")[2]


def attributes(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Public attributes that are plain: numbers, strings, and short lists of them."""
    return {
        name: value
        for name, value in state.items()
        if type(name) is str
        and not name.startswith("_")
        and name != "training"
        and _is_plain(value)
    }


def held(state: Mapping[str, Any], part: str) -> Iterator[tuple[str, Any]]:
    """What a module holds as `_parameters`, `_buffers` or `_modules`, without empty places."""
    for name, value in mappings.items(state[part]):
        if type(name) is str and value is not None:
            yield name, value


def is_persistent(state: Mapping[str, Any], buffer: str) -> bool:
    """False for a buffer that `state_dict()` leaves out."""
    left_out = state.get("_non_persistent_buffers_set")
    if type(left_out) is not Record:
        return True
    members = [*left_out.parts, *(value for step in left_out.steps for value in step.values)]
    arguments = left_out.parts[1] if len(left_out.parts) > 1 else ()
    if type(arguments) is tuple and arguments and type(arguments[0]) is list:
        members = arguments[0]  # a set before protocol 4
    return buffer not in members


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return len(value) <= _LONGEST and all(type(item) in _PLAIN for item in value)
    return type(value) in _PLAIN
