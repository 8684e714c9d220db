"""TorchScript: modules of compiled classes, whose code stands beside the pickle.

Classes are named `__torch__.torch.nn.modules.sparse.___torch_mangle_3.Embedding`; the code
(`code/__torch__/torch/nn/modules/sparse/___torch_mangle_3.py`) lists what is a parameter and
what a buffer. https://docs.pytorch.org/docs/stable/jit.html
"""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Kind
from tiesurgeon.rooms.pytorch.pickles import mappings
from tiesurgeon.rooms.pytorch.pickles.modules import attributes
from tiesurgeon.rooms.pytorch.pickles.nodes import Global, Record
from tiesurgeon.rooms.pytorch.pickles.recognised import Tensor, tensor_of
from tiesurgeon.rooms.pytorch.pickles.weights import Part, Place, WeightSet

_COMPILED = "__torch__"
_CLASS = re.compile(r"^class (\w+)\(", re.M)
_LISTED = re.compile(r"^  __(parameters|buffers)__ = (\[[^\]]*\])", re.M)
_FINAL = re.compile(r"^  (\w+) : Final\[.*?\] = (.+)$", re.M)
_TRACED_PADDING = re.compile(r" torch\.embedding\(weight, \w+, (\d+)")
_TRACED_LIMIT = re.compile(r" torch\.embedding_renorm_\([^\n]{0,200}, ([\d.e+-]+), ([\d.e+-]+)\)")
_MOST_MODULES = 100_000


@dataclass(frozen=True)
class Compiled:
    """What the code says of a class: which attributes are what, and its constants."""

    roles: Mapping[str, Kind]
    constants: Mapping[str, Any]


def is_scripted(root: Any) -> bool:
    """True for the pickle of a compiled module."""
    made_by = mappings.global_of(root)
    return made_by is not None and made_by.module.partition(".")[0] == _COMPILED


def scripted_set(root: Any, read: Callable[[str], bytes]) -> WeightSet:
    """The modules and tensors of a compiled module; `read` gives the code that stands beside it.

    Raises UnreadableFile where a module holds itself.
    """
    search = _Search(_Code(read))
    search.module(root, "", frozenset())
    return WeightSet("", "module", root, search.parts)


@dataclass
class _Code:
    """The compiled classes of a file, read as they are asked for."""

    read: Callable[[str], bytes]
    _files: dict[str, Mapping[str, Compiled]] = field(default_factory=dict)

    def of(self, name: Global) -> Compiled | None:
        """None where the code does not speak of the class."""
        if name.module not in self._files:
            member = f"code/{name.module.replace('.', '/')}.py"
            try:
                text = self.read(member).decode("utf-8")
            except KeyError:
                text = ""
            self._files[name.module] = _classes(text)
        return self._files[name.module].get(name.name)


def _classes(text: str) -> Mapping[str, Compiled]:
    starts = [*_CLASS.finditer(text)]
    ends = [*(start.start() for start in starts[1:]), len(text)]
    bodies = {s[1]: text[s.end() : end] for s, end in zip(starts, ends, strict=True)}
    return {name: Compiled(_roles(body), _constants(body)) for name, body in bodies.items()}


def _roles(body: str) -> Mapping[str, Kind]:
    found: dict[str, Kind] = {}
    for word, listed in _LISTED.findall(body):
        kind: Kind = "weight" if word == "parameters" else "buffer"
        for name in ast.literal_eval(listed):
            found[str(name)] = kind
    return found


def _constants(body: str) -> Mapping[str, Any]:
    """Constants that the class lists; traced code has them only in its calls."""
    found = {name: _literal(text) for name, text in _FINAL.findall(body)}
    if padding := _TRACED_PADDING.search(body):
        found["padding_idx"] = int(padding[1])
    if limit := _TRACED_LIMIT.search(body):
        found["max_norm"], found["norm_type"] = float(limit[1]), float(limit[2])
    return found


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):  # the name of an enum, an expression
        return text


@dataclass
class _Search:
    code: _Code
    parts: list[Part] = field(default_factory=list)

    def module(self, node: Record, name: str, above: frozenset[int]) -> None:
        if id(node) in above:
            raise UnreadableFile(f"its module {name!r} holds itself")
        if len(self.parts) > _MOST_MODULES:
            raise UnreadableFile(f"names more than {_MOST_MODULES:,} modules")
        compiled = mappings.global_of(node)
        state = state_of(node)
        assert compiled is not None
        code = self.code.of(compiled)
        constants = {} if code is None else code.constants
        part = Part(name, compiled.name, {**attributes(state), **attributes(constants)})
        below = []
        for key, value in state.items():
            tensor = tensor_of(value)
            full = f"{name}.{key}" if name else str(key)
            if tensor is not None:
                kind = _by_gradient(tensor) if code is None else code.roles.get(key)
                if kind is not None:  # else a plain attribute, which state_dict() leaves out
                    part.places.append(Place(full, state, key, tensor, None, kind, node))
            elif is_scripted(value):
                below.append((full, value))
        if part.places or not below:
            self.parts.append(part)
        for full, child in below:
            self.module(child, full, above | {id(node)})


def state_of(node: Record) -> dict[str, Any]:
    """The attributes of a compiled module."""
    for step in node.steps:
        if step.opcode == pickle.BUILD and type(step.values[0]) is dict:
            return step.values[0]
    return {}


def _by_gradient(tensor: Tensor) -> Kind:
    return "weight" if tensor.requires_grad else "buffer"
