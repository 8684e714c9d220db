"""Where the graph reads its parameters: by which node, as what, and which way turned.

A parameter may come through operators that only turn it (`weight.t()`) or leave every number
in its place (a cast, a broadcast); these are followed to the node that computes with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tiesurgeon.edits import Perm, compose
from tiesurgeon.rooms.pytorch.exported.operators import argument_of, is_product, name_of
from tiesurgeon.rooms.pytorch.exported.program import Node, Program, Slot, names_in, slots

_KEEPS = frozenset("expand view clone contiguous alias detach to _to_copy".split())


@dataclass(frozen=True)
class Read:
    """A use of a parameter.

    node      number of the node that computes with it
    argument  of that node's operator
    value     the parameter's placeholder
    perm      how the node sees the parameter; for a product as (out, in), as Linear does
    slot      a place on the way, of the node `owner`, that reads the parameter turned by `turned`
    """

    node: int
    argument: str
    value: str
    perm: Perm | None
    slot: Slot
    owner: int
    turned: Perm | None


@dataclass(frozen=True)
class _Trail:
    """The way from a placeholder to a value: after each step, which way the parameter is turned."""

    value: str
    perms: tuple[Perm | None, ...] = (None,)
    slots: tuple[tuple[int, Slot], ...] = ()

    def on(self, node: int, slot: Slot, perm: Perm | None) -> _Trail:
        return _Trail(self.value, (*self.perms, perm), (*self.slots, (node, slot)))


def reads(program: Program) -> Iterator[Read]:
    """All uses of parameters, buffers and constants by the nodes of the graph, in order."""
    trails = {found.value: _Trail(found.value) for found in program.inputs if _is_tensor(found)}
    for number, node in enumerate(program.nodes):
        following = _followed(program, number, node, trails)
        if following is not None:
            trails[next(names_in(node["outputs"]))] = following
            continue
        for named in node["inputs"]:
            argument = str(named.get("name"))
            for slot in slots(named.get("arg")):
                trail = trails.get(slot[0][slot[1]])
                if trail is not None:
                    yield _read(number, argument, node, trail, slot)


def _is_tensor(found: object) -> bool:
    return getattr(found, "role", "") in ("parameter", "buffer", "tensor_constant")


def _followed(
    program: Program, number: int, node: Node, trails: dict[str, _Trail]
) -> _Trail | None:
    """The trail that a node only carries on; None if it computes, or reads no parameter."""
    first = next(iter(slots(node["inputs"])), None)
    trail = None if first is None else trails.get(first[0][first[1]])
    if first is None or trail is None or len(list(names_in(node["outputs"]))) != 1:
        return None
    source, result = first[0][first[1]], next(names_in(node["outputs"]))
    shape, before = program.shape(result), trail.perms[-1]
    if name_of(node) in _KEEPS:
        kept = len(shape) >= 2 and shape[-2:] == program.shape(source)[-2:]
        kept = kept and len(program.shape(trail.value)) == 2
        return trail.on(number, first, before) if kept or shape == program.shape(source) else None
    rank = len(program.shape(trail.value))
    turn = _turn(node, rank) if len(program.shape(source)) == rank else None
    return None if turn is None else trail.on(number, first, compose(before, turn))


def _turn(node: Node, rank: int) -> Perm | None:
    name = name_of(node)
    order = list(range(rank))
    if name == "permute":
        order = argument_of(node, "dims") or []
    elif name in ("t", "numpy_T"):
        order.reverse()
    elif name == "transpose":
        one, other = argument_of(node, "dim0"), argument_of(node, "dim1")
        if not all(type(axis) is int and -rank <= axis < rank for axis in (one, other)):
            return None
        order[one], order[other] = order[other], order[one]
    else:
        return None
    turned = tuple(axis % rank for axis in order if type(axis) is int)
    return turned if sorted(turned) == list(range(rank)) else None


def _read(number: int, argument: str, node: Node, trail: _Trail, slot: Slot) -> Read:
    perm = trail.perms[-1]
    if is_product(node, argument) and (perm is None or len(perm) == 2):
        perm = compose(perm, (1, 0))
    places = (*trail.slots, (number, slot))
    # Where the parameter is on its way as it is seen at the end, nothing has to be turned again.
    step = trail.perms.index(perm) if perm in trail.perms else len(places) - 1
    owner, place = places[step]
    return Read(number, argument, trail.value, perm, place, owner, trail.perms[step])
