"""Which layer sees which parameter, and under which name: the ties of the program.

A module holds its own parameters. One that computes with another's is tied to it: that is how
a tie looks in a graph. The name that it had for its own is an alias, kept where PyTorch keeps
it, too, so that a file says after the tie what it said before.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from tiesurgeon.edits import Perm, compose
from tiesurgeon.rooms.pytorch.exported.calls import Segment, segments
from tiesurgeon.rooms.pytorch.exported.operators import is_product, is_weight
from tiesurgeon.rooms.pytorch.exported.program import Input, Program
from tiesurgeon.rooms.pytorch.exported.reads import Read, reads
from tiesurgeon.rooms.pytorch.exported.scopes import scope_of

Aliases = Mapping[str, tuple[str, Perm | None]]


@dataclass
class Holding:
    """A tensor of the program as a layer sees it; `reads` are its uses under this name."""

    layer: str
    role: str
    tensor: str
    perm: Perm | None = None
    reads: list[Read] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Full name, as the graph shows it."""
        return full_name(self.layer, self.role)

    @property
    def is_own(self) -> bool:
        """True for the name that the signature has for the tensor."""
        return self.name == self.tensor


class Holdings:
    """All tensors of a program as its layers see them, `by_name`.

    `alike` gives tensors that are two names for the same numbers one key. `aliases` are names
    that the signature does not have, with the tensor that each stands for and how it is turned;
    `idle` are those of them that no node uses.
    """

    def __init__(
        self,
        program: Program,
        alike: Mapping[str, object],
        aliases: Aliases,
        idle: Collection[str] = (),
    ) -> None:
        self._program, self._alike, self._aliases = program, alike, aliases
        self.tensors: dict[str, Input] = {
            found.value: found
            for found in program.inputs
            if found.role in ("parameter", "buffer", "tensor_constant")
        }
        self.by_name: dict[str, Holding] = {}
        for found in self.tensors.values():
            path, _, role = found.name.rpartition(".")
            self.by_name[found.name] = Holding(path, role, found.name)
        every = list(reads(program))
        self.segments = self._segments(every)
        self.layers = self._named()
        self.modules = {n for s in self.segments if s.scope is not None for n in s.nodes}
        self._assign(every)
        for name in idle:
            tensor, perm = aliases[name]
            self.by_name.setdefault(name, Holding(*_split(name), tensor, perm))

    def of(self, tensor: str) -> list[Holding]:
        """All names under which a tensor is seen, its own first."""
        found = [holding for holding in self.by_name.values() if holding.tensor == tensor]
        return sorted(found, key=lambda holding: not holding.is_own)

    # --- who computes -------------------------------------------------------------------------

    def _segments(self, every: list[Read]) -> tuple[Segment, ...]:
        holders = {holding.layer for holding in self.by_name.values()}
        scopes = (scope_of(self._program.nodes[read.node]) for read in every)
        return tuple(segments(self._program, holders | {s.path for s in scopes if s is not None}))

    def _named(self) -> dict[int, str]:
        """The layer of every node by its number: a module's path, or a name for a function."""
        entries = self._program.module.get("module_call_graph", ())
        taken = {str(entry.get("fqn")) for entry in entries}
        taken |= {holding.layer for holding in self.by_name.values()}
        taken |= {s.scope.path for s in self.segments if s.scope is not None}
        taken |= {found.value for found in self._program.inputs if found.role == "user_input"}
        layers = {}
        for segment in self.segments:
            if segment.scope is not None:
                name = segment.scope.path
            else:
                (number,) = segment.nodes
                name = unique(str(self._program.nodes[number].get("name") or "value"), taken)
                taken.add(name)
            layers.update(dict.fromkeys(segment.nodes, name))
        return layers

    # --- who sees what ------------------------------------------------------------------------

    def _assign(self, every: list[Read]) -> None:
        claimed: set[str] = set()
        later = []
        for read in every:
            if read.node in self.modules and self._is_within(read):
                self._own(read).reads.append(read)
                claimed.add(read.value)
            else:
                later.append(read)
        for read in later:
            if read.node in self.modules or self._alias(read) is not None:
                self._share(read)
            elif not is_weight(self._program.nodes[read.node], read.argument):
                self._own(read).reads.append(read)
            elif read.value in claimed:
                self._share(read)
            else:  # a function works for the module, whose weight it is
                claimed.add(read.value)
                self._own(read).reads.append(read)
                self._lend(read)

    def _lend(self, read: Read) -> None:
        """Shows the function's call as one of the module, if nothing else calls that."""
        holding = self._own(read)
        is_plain = holding.role == "weight" and read.perm is None and bool(holding.layer)
        if is_plain and holding.layer not in self.layers.values():
            self.layers[read.node] = holding.layer

    def _own(self, read: Read) -> Holding:
        return self.by_name[self.tensors[read.value].name]

    def _is_within(self, read: Read) -> bool:
        layer, held = self.layers[read.node], self._own(read).layer
        return held == layer or held.startswith(f"{layer}.")

    def _share(self, read: Read) -> None:
        """A use of another's tensor, under the layer's own name for it."""
        tensor = self.tensors[read.value].name
        alias = self._alias(read)
        if alias is not None:
            name, perm = alias, self._aliases[alias][1]
            layer, role = _split(name)
        else:
            (layer, role), perm = self._role(read), read.perm
            name = full_name(layer, role)
        held = self.by_name.get(name)
        if held is not None and (held.tensor, held.perm) != (tensor, perm):
            if held.is_own and perm is None and self.are_alike(held.tensor, tensor):
                held.reads.append(read)  # its own parameter, on the same numbers
                return
            role = f"{role} of {tensor}"
            name = full_name(layer, role)
        self.by_name.setdefault(name, Holding(layer, role, tensor, perm)).reads.append(read)

    def _role(self, read: Read) -> tuple[str, str]:
        if is_weight(self._program.nodes[read.node], read.argument):
            return self.layers[read.node], "weight"
        if read.argument in ("weight", "bias"):
            return self.layers[read.node], read.argument
        return self.layers[read.node], _split(self.tensors[read.value].name)[1]

    def _alias(self, read: Read) -> str | None:
        """The name that the module around a node has for what the node reads."""
        node = self._program.nodes[read.node]
        scope, tensor = scope_of(node), self.tensors[read.value].name
        if scope is None:
            return None
        seen = [read.perm]
        if is_product(node, read.argument):  # by a module that keeps it as (in, out), perhaps
            seen.append(compose(read.perm, (1, 0)))
        for name, (meant, perm) in self._aliases.items():
            if meant == tensor and perm in seen and _split(name)[0] == scope.path:
                return name
        return None

    def are_alike(self, one: str, other: str) -> bool:
        """True if two tensors are names for the same numbers."""
        return one in self._alike and self._alike[one] == self._alike.get(other)


def full_name(layer: str, role: str) -> str:
    """As the graph shows it: `decoder.weight`."""
    return f"{layer}.{role}" if layer else role


def unique(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken."""
    found, number = name, 0
    while found in taken:
        number += 1
        found = f"{name}_{number}"
    return found


def _split(name: str) -> tuple[str, str]:
    path, _, role = name.rpartition(".")
    return path, role
