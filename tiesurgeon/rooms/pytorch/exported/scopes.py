"""Which module a node of the graph came from, as its `nn_module_stack` says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tiesurgeon.rooms.pytorch.exported.program import Node

_REPEATED = re.compile(r"@\d+$")
# They only call other modules; what else they do is shown node by node.
_CONTAINERS = ("container", "transformer", "module")


@dataclass(frozen=True)
class Scope:
    """The innermost module that a node belongs to; `key` tells the calls of one module apart."""

    key: str
    path: str
    kind: str

    @property
    def class_name(self) -> str:
        """The bare name of its class."""
        return self.kind.rpartition(".")[2]

    @property
    def is_torch_layer(self) -> bool:
        """True for layers of `torch.nn` that do their work themselves."""
        parts = self.kind.split(".")
        return parts[:3] == ["torch", "nn", "modules"] and parts[3] not in _CONTAINERS


def scopes_of(node: Node) -> list[Scope]:
    """The modules around a node, from the root inwards; none where the file does not say."""
    stack = node.get("metadata", {}).get("nn_module_stack", "")
    found = []
    for entry in stack.split(";") if stack else ():
        key, path, kind = (["", *entry.rsplit(",", 2)])[-3:]
        if not key.startswith("_empty_nn_module_stack"):
            found.append(Scope(key, _REPEATED.sub("", path), kind))
    return found


def scope_of(node: Node) -> Scope | None:
    """The innermost of them."""
    return next(reversed(scopes_of(node)), None)


def classes(nodes: Iterable[Node]) -> Mapping[str, str]:
    """The class of every module that is called, by its path."""
    return {scope.path: scope.class_name for node in nodes for scope in scopes_of(node)}
