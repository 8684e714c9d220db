"""A pickled PyTorch file open to edits, which are made in its tree; the tree is written again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tiesurgeon.edits import Perm, compose, inverse
from tiesurgeon.errors import TieRefused, UnknownName
from tiesurgeon.graph import Array
from tiesurgeon.rooms.pytorch.assignments import assignment, product
from tiesurgeon.rooms.pytorch.containers import PROVENANCE, Container
from tiesurgeon.rooms.pytorch.pickles import mappings
from tiesurgeon.rooms.pytorch.pickles.content import Content, Spot, content_of
from tiesurgeon.rooms.pytorch.pickles.copies import separate, state_of
from tiesurgeon.rooms.pytorch.pickles.emit import encode
from tiesurgeon.rooms.pytorch.pickles.machine import Decoded
from tiesurgeon.rooms.pytorch.pickles.nodes import Persistent, Record, replace_all
from tiesurgeon.rooms.pytorch.pickles.numbers import Numbers, storages_in
from tiesurgeon.rooms.pytorch.pickles.optimizers import (
    Optimizer,
    owner_of,
    parameters_of,
    take_out,
)
from tiesurgeon.rooms.pytorch.pickles.recognised import Tensor, with_arguments
from tiesurgeon.rooms.pytorch.pickles.refusals import refuse_unfit, words_on
from tiesurgeon.rooms.pytorch.pickles.transposed import plain_linear, transposed_linear
from tiesurgeon.rooms.pytorch.tensors import contiguous_strides


class PickledDocument:
    """What `torch.save` or `torch.jit.save` wrote. See `document.Document`.

    In modules two names become one Parameter object, wherever in the pickle the other one was
    held. A state dict cannot say that: there both names lead to one storage, and `code` says
    what the class has to do.
    """

    def __init__(self, container: Container, decoded: Decoded, numbers: Numbers) -> None:
        self._container, self._numbers = container, numbers
        self._root, self._protocol = decoded.root, decoded.protocol
        self._content: Content | None = None
        self._warnings: dict[str, None] = {}
        self._lines: dict[str, str] = {}

    def tie(self, source: str, target: str, perm: Perm | None) -> None:
        """Makes two names one Parameter, or one storage; see `refusals` for what is refused."""
        one, other = self._spot(source), self._spot(target)
        refuse_unfit(one, other, perm)
        if one.is_in_module != other.is_in_module:
            raise TieRefused(f"{source} and {target} do not lie in one model")
        if one.is_in_module:
            self._tie_parameters(one, other, perm)
        else:
            self._tie_storages(one, other, perm)
        self._warnings |= dict.fromkeys(words_on(one, other))
        self._content = None

    def _tie_parameters(self, source: Spot, target: Spot, perm: Perm | None) -> None:
        kept, dropped = source.place.tensor.record, target.place.tensor.record
        turn = compose(compose(source.place.perm, perm), inverse(target.place.perm))
        if kept is dropped and turn is None:
            return
        turned = {} if turn is None else self._turned(source, target, turn)
        self._forget(source, target)
        replace_all(self._root, turned)
        replace_all(self._root, {id(dropped): kept})

    def _turned(self, source: Spot, target: Spot, turn: Perm) -> Mapping[int, Record]:
        """The modules that are to see another weight transposed, or no longer, by id."""
        if source.place.tensor.record is target.place.tensor.record:
            raise TieRefused(f"{target.name} is {source.name} already, and not its transpose")
        if self._now.format == "torchscript":
            raise TieRefused(
                f"{target.name} would be {source.name} transposed, which TorchScript's compiled "
                "code cannot see; tie the Python model, or export it to .pt2 and tie that"
            )
        turned, lines = {}, []
        for spot in self._now.spots.values():
            module = spot.place.module
            if spot.place.tensor.record is not target.place.tensor.record or module is None:
                continue
            if spot.place.perm is not None:
                turned[id(module)] = plain_linear(module)
                continue
            turned[id(module)] = transposed_linear(module, spot.part.name)
            lines.append(
                f"{spot.part.name} is now a GraphModule of torch.fx that calls F.linear with the "
                f"transposed weight: it is no nn.Linear for code that asks, and {spot.name} has "
                f"the shape of {source.name} in its state dict"
            )
        self._warnings |= dict.fromkeys(lines)
        return turned

    def _tie_storages(self, source: Spot, target: Spot, perm: Perm | None) -> None:
        self._forget(source, target)
        storage, offset, shape, strides, *rest = source.place.tensor.arguments
        if perm is not None:
            shape, strides = (tuple(numbers[axis] for axis in perm) for numbers in (shape, strides))
        arguments = (storage, offset, shape, strides, *rest)
        record = with_arguments(source.place.tensor, arguments)
        mappings.put(target.place.holder, target.place.key, record)
        self._lines[target.name] = self._line(source, target, perm)

    def _line(self, source: Spot, target: Spot, perm: Perm | None) -> str:
        names = source.name, target.name
        if source.where is target.where:
            names = source.place.name, target.place.name
        if perm is None:
            return assignment(*names)
        layer = target.place.name.rpartition(".")[0]
        has_bias = any(place.name == f"{layer}.bias" for place in target.where.places)
        return product(*names, bias=has_bias)

    def _forget(self, source: Spot, target: Spot) -> None:
        """Takes the target out of the optimizer that trains it; it and the source become one."""
        parameters = parameters_of(target.where)
        held = [n for n, parameter in enumerate(parameters) if parameter.holds(target.place)]
        if not held or (source.where is target.where and parameters[held[0]].holds(source.place)):
            return
        for optimizer, is_certain in self._optimizers_of(target):
            if not is_certain:
                self._take_out(optimizer)
                continue
            number = optimizer.numbering(parameters).get(held[0])
            if number is not None:
                optimizer.remove(number)

    def _optimizers_of(self, spot: Spot) -> list[tuple[Optimizer, bool]]:
        """The optimizers that train a tensor; False for one that perhaps does."""
        found = []
        for optimizer in (Optimizer(s) for s in self._now.sets if s.kind == "optimizer"):
            owner = owner_of(optimizer, self._now.weight_sets)
            if owner is None or owner is spot.where:
                found.append((optimizer, owner is not None))
        return found

    def _take_out(self, optimizer: Optimizer) -> None:
        take_out(self._root, optimizer.node)
        self._warn(
            f"{optimizer.path}: dropped, because it is not certain which of its numbers is which "
            "parameter; training goes on with a fresh optimizer"
        )

    def assign(self, name: str, value: Array) -> None:
        """Gives a name other numbers, and with it all names that see the same bytes."""
        place = self._spot(name).place
        back = inverse(place.perm)
        self._numbers.assign(name, place.tensor, value if back is None else value.transpose(back))

    def untie(self, name: str) -> None:
        """Gives a name a storage of its own and, in a module, a Parameter of its own."""
        spot = self._spot(name)
        place = spot.place
        if not self._is_shared(spot):
            return
        array = self._numbers.load(name, place.tensor)
        array = array if place.perm is None else array.transpose(place.perm)
        record = self._stored_anew(place.tensor, array)
        for optimizer, _ in self._optimizers_of(spot):
            self._stop_training(optimizer, name)
        if spot.is_in_module:
            self._hold_alone(spot, record)
        else:
            mappings.put(place.holder, place.key, record)
        self._lines.pop(name, None)
        self._content = None

    def _is_shared(self, spot: Spot) -> bool:
        tensor = spot.place.tensor
        return any(
            other.name != spot.name
            and other.place.tensor.storage.key == tensor.storage.key
            and other.place.tensor.layout.offset == tensor.layout.offset
            for other in self._now.spots.values()
        )

    def _stored_anew(self, tensor: Tensor, array: Array) -> Record:
        """A tensor like another one over a storage that the file gets."""
        key = self._new_key()
        _, kind, _, device, *rest = tensor.arguments[0].value
        flat = array if array.flags.c_contiguous else np.ascontiguousarray(array)
        flat = flat.reshape(-1).view(tensor.storage.dtype)
        self._numbers.add(key, flat)
        storage = Persistent(("storage", kind, key, device, flat.size, *rest[1:]))
        strides = contiguous_strides(array.shape)
        arguments = (storage, 0, tuple(array.shape), strides, *tensor.arguments[4:])
        return with_arguments(tensor, arguments)

    def _new_key(self) -> str:
        taken = {*self._numbers.extents, *self._numbers.replaced}
        return str(max((int(key) for key in taken if key.isdecimal()), default=-1) + 1)

    def _hold_alone(self, spot: Spot, record: Record) -> None:
        path = spot.part.name.split(".") if spot.part.name else []
        module = separate(spot.where.node, path)
        state, key = state_of(module), spot.place.key
        old = spot.place.tensor.record
        holders = [state.get("_parameters"), state.get("_buffers"), state]
        holder = next(h for h in holders if mappings.get(h, key) is old)
        mappings.put(holder, key, record)
        is_held_still = any(value is old for h in holders for _, value in mappings.items(h or {}))
        for values in state.values():
            if type(values) is list and not is_held_still:
                values[:] = [record if value is old else value for value in values]
        if spot.place.perm is not None:
            replace_all(self._root, {id(module): plain_linear(module)})

    def _stop_training(self, optimizer: Optimizer, name: str) -> None:
        if optimizer.is_live:
            self._warn(f"{optimizer.path} does not train {name}; make a new optimizer")
        else:
            take_out(self._root, optimizer.node)
            self._warn(
                f"{optimizer.path}: dropped, because the model has one parameter more; training "
                "goes on with a fresh optimizer"
            )

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes the file anew, with only those storages that something still refers to.

        `provenance` and the lines of code lie in `extra/tiesurgeon.json` of a zip archive; the
        older format has no place for them.
        """
        is_scripted = self._now.format == "torchscript"
        data = encode(self._root, self._protocol, for_torchscript=is_scripted)
        wanted = storages_in(self._root).keys()
        replaced = {k: array for k, array in self._numbers.replaced.items() if k in wanted}
        note = json.dumps({**provenance, "code": list(self.code)}, indent=1)
        extra = {PROVENANCE: note.encode()}
        self._container.write(path, data, wanted - replaced.keys(), replaced, extra)

    @property
    def warnings(self) -> Sequence[str]:
        """What the edits cost."""
        return tuple(self._warnings)

    @property
    def code(self) -> Sequence[str]:
        """A line for each tie in a state dict."""
        return tuple(self._lines.values())

    @property
    def _now(self) -> Content:
        if self._content is None:
            self._content = content_of(self._root, self._container.read)
        return self._content

    def _spot(self, name: str) -> Spot:
        if name not in self._now.spots:
            raise UnknownName(f"the file holds no tensor named {name!r}")
        return self._now.spots[name]

    def _warn(self, line: str) -> None:
        self._warnings[line] = None
