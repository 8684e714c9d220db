"""Changes of the graph itself: uses sent to another parameter, turned where they must be.

Only names change, so it matters neither which operators compute with a parameter nor whether
sizes are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tiesurgeon.edits import Perm, compose, inverse
from tiesurgeon.rooms.pytorch.exported.operators import name_of
from tiesurgeon.rooms.pytorch.exported.program import Node, Program, Slot, names_in, slots
from tiesurgeon.rooms.pytorch.exported.reads import Read
from tiesurgeon.rooms.pytorch.exported.scopes import scope_of

_TURN = "torch.ops.aten.permute.default"


def send(program: Program, old: str, new: str, perm: Perm | None) -> None:
    """Makes every use of the value `old` one of `new`, turned by `perm`; `old` is free then."""
    if perm is None:
        _rename(program.readers(old), new)
        return
    turned: dict[str, str] = {}  # one for each call of a module, which then holds its own
    for node in list(program.nodes):
        found = [slot for slot in slots(node["inputs"]) if slot[0][slot[1]] == old]
        scope = scope_of(node)
        key = "" if scope is None else scope.key
        if found and key not in turned:
            turned[key] = insert_turn(program, new, perm, node)
        _rename(found, turned.get(key, new))
    rest = program.readers(old)  # it is an output, perhaps
    if rest:
        last = next(iter(turned.values()), None) or insert_turn(program, new, perm, None)
        _rename(rest, last)


def send_reads(program: Program, uses: Iterable[Read], new: str, perm: Perm | None) -> None:
    """Makes some uses those of `new`, which is what they used before transposed by `perm`."""
    turns: dict[tuple[int, Perm | None], str] = {}
    nodes = list(program.nodes)
    for read in uses:
        turn = compose(inverse(perm), read.turned)
        place, key = read.slot
        if turn is None:
            place[key] = new
            continue
        at = (read.owner, turn)
        if at not in turns:
            turns[at] = insert_turn(program, new, turn, nodes[read.owner])
        place[key] = turns[at]
    drop_unused_turns(program)


def insert_turn(program: Program, value: str, perm: Perm, before: Node | None) -> str:
    """A node that permutes a value, ahead of a node that shall use it; gives the new value."""
    name = program.new_name("permute")
    like: Any = before if before is not None else (program.nodes[-1] if program.nodes else {})
    inputs: list[dict[str, Any]] = [
        {"name": "self", "arg": {"as_tensor": {"name": value}}},
        {"name": "dims", "arg": {"as_ints": list(perm)}},
    ]
    if any("kind" in given for given in like.get("inputs", ())):
        inputs = [{**given, "kind": 1} for given in inputs]  # positional
    node: Node = {
        "target": _TURN,
        "inputs": inputs,
        "outputs": [{"as_tensor": {"name": name}}],
        "metadata": {
            key: said
            for key, said in like.get("metadata", {}).items()
            if key in ("nn_module_stack", "stack_trace")
        },
    }
    if "is_hop_single_tensor_return" in like:
        node["is_hop_single_tensor_return"] = None
    if "name" in like:
        node["name"] = name
    place = len(program.nodes)
    if before is not None:
        place = next(n for n, other in enumerate(program.nodes) if other is before)
    program.nodes.insert(place, node)
    program.metas[name] = turned_meta(program.metas[value], perm)
    return name


def turned_meta(meta: dict[str, Any], perm: Perm) -> dict[str, Any]:
    """What is known of a tensor, for its transpose: the same bytes, seen otherwise."""
    sizes, strides = meta["sizes"], meta["strides"]
    return {
        **meta,
        "sizes": [sizes[axis] for axis in perm],
        "strides": [strides[axis] for axis in perm],
        "requires_grad": False,  # as everything is that the graph computes
    }


def drop_unused_turns(program: Program) -> None:
    """Takes out permutations whose results nothing uses any more."""
    while True:
        used = {name for node in program.nodes for name in names_in(node["inputs"])}
        used |= set(names_in([program.graph["outputs"], program.output_specs]))
        unused = [
            node
            for node in program.nodes
            if name_of(node) in ("permute", "t", "transpose")
            and used.isdisjoint(names_in(node["outputs"]))
        ]
        if not unused:
            return
        for node in unused:
            program.nodes.remove(node)
            for name in names_in(node["outputs"]):
                program.metas.pop(name, None)


def _rename(places: Iterable[Slot], new: str) -> None:
    for place, key in places:
        place[key] = new
