"""The graph of an exported program and its signature, as `models/model.json` has them.

Everything in it that stands for a value is the value's name; an edit changes names. The JSON
stays what it was, so that what this version does not know is written back untouched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from tiesurgeon.errors import UnreadableFile, UnsupportedFormat

Role = Literal["parameter", "buffer", "tensor_constant", "user_input", "other"]
Slot = tuple[dict[str, Any], str]
Node = dict[str, Any]

_NAMES = {
    "parameter": "parameter_name",
    "buffer": "buffer_name",
    "tensor_constant": "tensor_constant_name",
}
_MAJOR = 8  # of the schema; the minor number grows with additions only


@dataclass(frozen=True)
class Input:
    """A placeholder of the graph. `name` is the full name of the tensor that it stands for."""

    value: str
    role: Role
    name: str


class Program:
    """An exported program, to be looked at and changed in place.

    Raises UnreadableFile where graph and signature contradict each other or a value is used
    before it is computed.
    """

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self._refuse_other_schema()
        self.module: dict[str, Any] = _part(raw, "graph_module", dict)
        self.graph: dict[str, Any] = _part(self.module, "graph", dict)
        self.nodes: list[Node] = _part(self.graph, "nodes", list)
        self.arguments: list[Any] = _part(self.graph, "inputs", list)
        self.metas: dict[str, Any] = _part(self.graph, "tensor_values", dict)
        signature = _part(self.module, "signature", dict)
        self.specs: list[Any] = _part(signature, "input_specs", list)
        self.output_specs: list[Any] = _part(signature, "output_specs", list)
        self._refuse_contradictions()

    def _refuse_other_schema(self) -> None:
        found = self.raw.get("schema_version")
        major = found.get("major") if isinstance(found, dict) else None
        if major != _MAJOR:
            raise UnsupportedFormat(
                f"its program has schema version {major}, and this version reads {_MAJOR}; load it "
                "with the PyTorch that wrote it and export it anew with PyTorch 2.8 or later"
            )

    # --- looking -----------------------------------------------------------------------------

    @property
    def inputs(self) -> tuple[Input, ...]:
        """All placeholders, in order."""
        pairs = zip(self.arguments, self.specs, strict=True)
        return tuple(_input(argument, spec) for argument, spec in pairs)

    def input_of(self, name: str) -> Input:
        """The placeholder of a tensor by its full name; KeyError if there is none."""
        for found in self.inputs:
            if found.name == name and found.role != "user_input":
                return found
        raise KeyError(name)

    @property
    def user_outputs(self) -> tuple[str, ...]:
        """Names of the values that the user gets."""
        specs = (s["user_output"] for s in self.output_specs if "user_output" in s)
        return tuple(name for spec in specs for name in names_in(spec))

    def shape(self, value: str) -> tuple[Any, ...]:
        """Sizes of a tensor; those that are not known beforehand as expressions."""
        meta = self.metas.get(value)
        sizes = meta.get("sizes", ()) if isinstance(meta, dict) else ()
        return tuple(size.get("as_int", str(size)) for size in sizes)

    def readers(self, value: str) -> list[Slot]:
        """Every place where a value is used: by nodes, as an output, in signatures of modules."""
        places = [*self.nodes, self.graph["outputs"], self.output_specs]
        places += [entry.get("signature") for entry in self.module.get("module_call_graph", ())]
        found: list[Slot] = []
        for place in places:
            held = place["inputs"] if isinstance(place, dict) and "target" in place else place
            found += [slot for slot in slots(held) if slot[0][slot[1]] == value]
        return found

    # --- changing ----------------------------------------------------------------------------

    def new_name(self, wanted: str) -> str:
        """A name for a value that no other value has."""
        taken = {found.value for found in self.inputs} | set(self.metas)
        taken |= {name for node in self.nodes for name in names_in(node["outputs"])}
        taken |= {str(node.get("name")) for node in self.nodes}
        name, number = wanted, 0
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        return name

    def drop_input(self, value: str) -> None:
        """Takes a placeholder out of the graph, which nothing uses any more."""
        place = next(i for i, found in enumerate(self.inputs) if found.value == value)
        del self.arguments[place], self.specs[place]
        self.metas.pop(value, None)

    def add_parameter(self, name: str, meta: Mapping[str, Any]) -> str:
        """A placeholder for a new parameter, after the others; gives the name of its value."""
        roles = [found.role for found in self.inputs]
        place = next((n for n, role in enumerate(roles) if role != "parameter"), len(roles))
        value = self.new_name("p_" + "".join(c if c.isalnum() else "_" for c in name).lower())
        self.arguments.insert(place, {"as_tensor": {"name": value}})
        spec = {"arg": {"name": value}, "parameter_name": name}
        self.specs.insert(place, {"parameter": spec})
        self.metas[value] = dict(meta)
        return value

    # --- checking ----------------------------------------------------------------------------

    def _refuse_contradictions(self) -> None:
        if len(self.arguments) != len(self.specs):
            raise UnreadableFile(
                f"its graph takes {len(self.arguments)} inputs and its signature names "
                f"{len(self.specs)}"
            )
        known: set[str] = set()
        tensors: set[str] = set()
        for found in self.inputs:
            _define(known, found.value)
            if found.role not in ("user_input", "other"):
                if found.name in tensors:
                    raise UnreadableFile(f"its signature names {found.name!r} twice")
                tensors.add(found.name)
        for node in self.nodes:
            if not isinstance(node, dict) or not isinstance(node.get("target"), str):
                raise UnreadableFile("one of its nodes names no operator")
            self._refuse_unknown(node["target"], _part(node, "inputs", list), known)
            for name in names_in(_part(node, "outputs", list)):
                _define(known, name)
        self._refuse_unknown("its output", _part(self.graph, "outputs", list), known)
        self._refuse_unknown("its signature", self.output_specs, known)

    @staticmethod
    def _refuse_unknown(user: str, held: Any, known: set[str]) -> None:
        for name in names_in(held):
            if name not in known:
                raise UnreadableFile(f"{user} uses {name!r} before it is computed")


def _define(known: set[str], name: str) -> None:
    if not name:
        return
    if name in known:
        raise UnreadableFile(f"its graph computes {name!r} twice")
    known.add(name)


def _input(argument: Any, spec: Any) -> Input:
    if not isinstance(spec, dict) or len(spec) != 1:
        raise UnreadableFile("its signature has an input of no known kind")
    ((kind, said),) = spec.items()
    value = next(names_in(argument), "")
    if kind in _NAMES:
        name = said.get(_NAMES[kind])
        if not isinstance(name, str) or said.get("arg") != {"name": value}:
            raise UnreadableFile(f"its signature says otherwise than its graph what {value!r} is")
        return Input(value, cast(Role, kind), name)
    if kind == "user_input" and next(names_in(said), "") != value:
        raise UnreadableFile(f"its signature names another input than {value!r}, as its graph does")
    return Input(value, "user_input" if kind == "user_input" else "other", value)


def slots(held: Any) -> Iterator[Slot]:
    """The places in arguments that hold the name of a value; nested graphs have their own."""
    if isinstance(held, dict):
        for key, item in held.items():
            if key in ("name", "as_name") and isinstance(item, str):
                if not _is_label(held):
                    yield held, key
            elif key != "as_graph":
                yield from slots(item)
    elif isinstance(held, list):
        for item in held:
            yield from slots(item)


def _is_label(held: dict[str, Any]) -> bool:
    """A NamedArgument's name is that of the operator's argument, not of a value."""
    return "arg" in held


def names_in(held: Any) -> Iterator[str]:
    """The names of values that arguments hold, in order."""
    return (place[key] for place, key in slots(held))


def _part(held: dict[str, Any], name: str, kind: type[Any]) -> Any:
    found = held.get(name)
    if not isinstance(found, kind):
        raise UnreadableFile(f"its program has no {name!r}")
    return found
