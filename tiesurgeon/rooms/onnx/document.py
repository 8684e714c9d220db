"""An ONNX model open to edits: in its protobuf, whose large tensors stay in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tiesurgeon.edits import Perm, compose, inverse
from tiesurgeon.errors import TieRefused, UnknownName
from tiesurgeon.graph import Array, Graph
from tiesurgeon.rooms.onnx.exact import refuse_inexact
from tiesurgeon.rooms.onnx.initializers import copy_of, drop_unused, visible_name
from tiesurgeon.rooms.onnx.layers import Builder, Use
from tiesurgeon.rooms.onnx.payloads import Made, Payloads
from tiesurgeon.rooms.onnx.places import fresh_name, replace_node
from tiesurgeon.rooms.onnx.projection import Head
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage
from tiesurgeon.rooms.onnx.retarget import TRANSPOSED, Retarget, through_transposes
from tiesurgeon.rooms.onnx.stored import Stored
from tiesurgeon.rooms.onnx.tensors import Tensors
from tiesurgeon.rooms.onnx.write import write_model

PROVENANCE = "tiesurgeon"


class OnnxDocument:
    """The content of a file, changed in memory only; `write` makes a new file of it.

    Variables go by the full names of their uses, as the graph has them (`MatMul_3/B`).
    `head` is the form in which a projection over a transposed matrix is written; `warnings`
    tell what the edits so far cost.
    """

    def __init__(self, path: Path, model: Any, payloads: Payloads) -> None:
        self.path = path
        self.model = model  # the ModelProto, whose large tensors point at payloads
        self.payloads = payloads
        self.head: Head = "gemm"
        self.warnings: list[str] = []
        self._moved: dict[str, str] = {}
        self._dropped: dict[str, str] = _dropped_before(model)
        self._look_again()

    def _look_again(self) -> None:
        """After each edit: the nodes are others now."""
        stored = Stored(Tensors(self.path.parent, self.payloads))
        self.index = Builder(self.model, stored)
        self.graph: Graph = self.index.graph()

    @property
    def data_files(self) -> set[Path]:
        """Files beside the model that it takes numbers from."""
        return self.payloads.files() - {self.path}

    def now(self, name: str) -> str:
        """What a use is called after the edits so far."""
        seen: set[str] = set()
        while name in self._moved and name not in seen:
            seen.add(name)
            name = self._moved[name]
        return name

    def _use(self, name: str) -> Use:
        name = self.now(name)
        if name not in self.index.uses:
            raise UnknownName(f"no node of this model takes a weight as {name!r}")
        return self.index.uses[name]

    def _sharing(self, use: Use) -> dict[str, Use]:
        """All uses of one initializer, by name."""
        tensor = use.held.tensor
        return {name: u for name, u in self.index.uses.items() if u.held.tensor is tensor}

    def _retarget(self) -> Retarget:
        return Retarget(self.index, self.head, self._moved, self.warnings)

    def tie(self, source: str, target: str, perm: Perm | None) -> None:
        """Every node that takes the target's initializer takes the source's.

        `perm` turns what the source's node sees into what the target's node sees. Raises
        TieRefused, with nothing changed, where a node cannot take the source's matrix so.
        """
        one, other = self._use(source), self._use(target)
        if one.held.tensor is other.held.tensor:
            raise TieRefused(f"{source!r} and {target!r} are one initializer already")
        stored = compose(compose(one.held.perm, perm), inverse(other.held.perm))
        refuse_inexact(one, other, stored)
        places, retarget = self._sharing(other), self._retarget()
        for use in (one, *places.values()):
            retarget.refuse(use)
        edits = [retarget.edit(use, one, compose(stored, use.held.perm)) for use in places.values()]
        dropped = other.held.name
        name = visible_name(self.model, one, list(places.values()))
        for edit in edits:
            edit(name)
        self._drop(other)
        self._dropped.update({self.now(place): dropped for place in places})
        is_renamed = perm is None and one.held.owner is self.model.graph
        if not is_renamed or any(use.held.chain for use in (one, *places.values())):
            self._look_again()
        else:  # only names of inputs changed; to look at a large graph again takes a second
            moved = {place: replace(use, held=one.held) for place, use in places.items()}
            self.index.uses.update(moved)

    def _drop(self, use: Use) -> None:
        """Takes out the initializer of a use, and the nodes that turned it about, if unused."""
        turning = [node.output[0] for node in reversed(use.held.chain)]
        self.warnings += drop_unused(self.model, [*turning, use.held.name])

    def settle(self) -> tuple[str, ...]:
        """Writes ties through a Transpose node in the form of `head`; returns which uses those are.

        Exporters write a tied projection as Transpose and MatMul, and every optimiser folds
        the Transpose into a second matrix.
        """
        settled = []
        for name in through_transposes(self.index):
            use, retarget = self._use(name), self._retarget()
            retarget.refuse(use)
            retarget.projection(use, use, TRANSPOSED)(use.held.name)
            self._drop(use)
            self._look_again()
            settled.append(self.now(name))
        return tuple(settled)

    def untie(self, name: str) -> None:
        """The node takes an initializer of its own, of the same bytes."""
        use = self._use(name)
        if len(self._sharing(use)) < 2:
            return
        self._retarget().refuse(use)
        tensor = copy_of(use.held.tensor)
        wish = self._dropped.pop(self.now(name), f"{use.held.name}_untied")
        taken = tensor.name = fresh_name(self.model, wish)
        number = self.payloads.number_of(tensor)
        if number is not None:
            self.payloads.point(tensor, self.payloads.copied(number))
        self.model.graph.initializer.append(tensor)
        clones = []
        for node in use.held.chain:
            clone = copy_of(node)
            clone.input[0] = taken
            taken = clone.name = clone.output[0] = fresh_name(
                self.model, f"{node.output[0]}_untied"
            )
            clones.append(clone)
        use.node.input[use.index] = taken
        if clones:
            replace_node(use.scope.graph, use.node, [*clones, use.node])
        self._look_again()

    def assign(self, name: str, value: Array) -> None:
        """Gives a variable other numbers, of the shape and dtype that its node sees."""
        use = self._use(name)
        storage = use.held.variable.storage
        if isinstance(storage, QuantisedStorage):
            raise TieRefused(
                f"{name!r} is quantised, so it cannot hold other numbers; choose values before "
                "the model is quantised"
            )
        back = inverse(use.held.perm)
        turned = value if back is None else value.transpose(back)
        if turned.shape != storage.shape or turned.dtype != storage.dtype:
            raise AssertionError(f"{name}: {turned.dtype} {turned.shape} for {storage}")
        array = np.ascontiguousarray(turned)
        outside = self.payloads.number_of(use.held.tensor) in self.payloads.outside
        made = Made(lambda: array.reshape(-1).view(np.uint8), array.nbytes)
        self.payloads.point(use.held.tensor, self.payloads.add(made, outside=outside))
        self._look_again()

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes the model to a new path, and external data beside it as `<name>.data`.

        What lay in files beside the model lies in that one file then; all else stays in the
        model unless it grew over the 2 GB that protobuf can hold.
        """
        document = {**provenance, "initializers": self._dropped}
        write_model(self.model, self.payloads, path, {PROVENANCE: json.dumps(document)})


def _dropped_before(model: Any) -> dict[str, str]:
    """Which initializer a use had before tiesurgeon tied it, if the file says."""
    for entry in model.metadata_props:
        if entry.key == PROVENANCE:
            try:
                found = json.loads(entry.value).get("initializers", {})
            except (ValueError, AttributeError):
                return {}
            return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
    return {}
