"""An exported program in memory: its graph, its tensors, and what each name stands for."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any

from tiesurgeon.edits import Perm
from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Array, Graph, Storage
from tiesurgeon.rooms.pytorch.containers.zips import Archive
from tiesurgeon.rooms.pytorch.exported.build import Builder
from tiesurgeon.rooms.pytorch.exported.holdings import Holdings
from tiesurgeon.rooms.pytorch.exported.payloads import (
    CONSTANTS,
    CONSTANTS_CONFIG,
    WEIGHTS,
    WEIGHTS_CONFIG,
    Payload,
    payloads,
    read_config,
    read_json,
)
from tiesurgeon.rooms.pytorch.exported.program import Program
from tiesurgeon.rooms.pytorch.tensors import Layout, Storages, contiguous_strides

MODEL = "models/model.json"
_OURS = "tiesurgeon"


class Content:
    """What a `.pt2` file holds.

    `config` is the entry of every weight as the file has it, by full name; `tensors` what the
    entries of weights and constants say; `aliases` the names that only the metadata knows,
    `idle` those of them that nothing uses; `new` the members that an edit made.
    """

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.program = Program(read_json(archive, MODEL))
        self.config = read_config(archive, WEIGHTS_CONFIG)
        constants = read_config(archive, CONSTANTS_CONFIG)
        self.new: dict[str, Array] = {}
        self._pickled = [name for name, e in constants.items() if e.get("tensor_meta") is None]
        self.tensors: dict[str, Payload] = {
            **payloads(archive, CONSTANTS, constants),
            **payloads(archive, WEIGHTS, self.config),
        }
        self._refuse_missing()
        ours = self._metadata().get(_OURS)
        self.aliases: dict[str, tuple[str, Perm | None]] = {
            **dict(self._spare_names()),
            **dict(_recorded(ours, self._named)),
        }
        idle = ours.get("idle") if isinstance(ours, dict) else None
        self.idle = {name for name in self.aliases if isinstance(idle, list) and name in idle}

    @property
    def _named(self) -> set[str]:
        roles = ("parameter", "buffer", "tensor_constant")
        return {found.name for found in self.program.inputs if found.role in roles}

    def _refuse_missing(self) -> None:
        for name in self._named:
            if name not in self.tensors:
                raise UnreadableFile(f"its program uses {name!r}, and no such tensor is stored")

    @property
    def spare(self) -> list[str]:
        """Names of stored weights that the program does not use."""
        named = self._named
        return [name for name in self.config if name not in named]

    def _spare_names(self) -> Iterator[tuple[str, tuple[str, None]]]:
        """Stored names that the program does not use, on the bytes of one that it does."""
        named = self._named
        used = {self.key(name): name for name in reversed(list(self.config)) if name in named}
        for name in self.spare:
            if self.key(name) in used:
                yield name, (used[self.key(name)], None)

    def key(self, name: str) -> object:
        """What two names for the same numbers have in common."""
        payload = self.tensors[name]
        return payload.member, payload.layout

    def are_alike(self, one: str, other: str) -> bool:
        """True if two names stand for the same numbers, seen alike."""
        return self.key(one) == self.key(other)

    def _metadata(self) -> dict[str, Any]:
        """What is attached to the graph by tools; PyTorch keeps it when it saves a program."""
        metadata = self.program.module.get("metadata")
        try:
            found = json.loads(metadata["custom"]) if metadata else {}
        except (KeyError, TypeError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def sign(self, provenance: Mapping[str, Any]) -> None:
        """Records where the file came from and which names it had."""
        names = {name: [tensor, perm] for name, (tensor, perm) in self.aliases.items()}
        ours = {"provenance": dict(provenance), "names": names, "idle": sorted(self.idle)}
        metadata = self.program.module.setdefault("metadata", {})
        metadata["custom"] = json.dumps({**self._metadata(), _OURS: ours})

    def holdings(self) -> Holdings:
        """Which layer sees which tensor, as the program is now."""
        alike = {name: self.key(name) for name in self.config}
        return Holdings(self.program, alike, self.aliases, self.idle)

    def graph(self, name: str) -> Graph:
        """The graph as it was read."""
        storages, stored = Storages(), {}
        for tensor, payload in self.tensors.items():
            extent = self.archive.extent(payload.member)
            storage, perm = storages.of(tensor, payload.member, extent, payload.layout)
            stored[tensor] = (storage, perm, payload.is_trained)
        return Builder(self.program, self.holdings(), stored).graph(name)

    def load(self, tensor: str) -> Array:
        """The numbers of a tensor as the program sees it, memory-mapped."""
        payload = self.tensors[tensor]
        if payload.member in self.new:
            return self.new[payload.member]
        extent = self.archive.extent(payload.member)
        storage, perm = Storages().of(tensor, payload.member, extent, payload.layout)
        return _turned(storage, perm)

    def store(self, tensor: str, array: Array) -> None:
        """Puts the numbers of a weight into a new member, contiguous, for this name alone."""
        paths = (f"weight_{number}" for number in count())
        path = next(p for p in paths if self._is_free(WEIGHTS + p))
        shape = tuple(array.shape)
        layout = Layout(array.dtype, shape, contiguous_strides(shape))
        self.new[WEIGHTS + path] = array
        self.tensors[tensor] = replace(self.tensors[tensor], member=WEIGHTS + path, layout=layout)
        entry = self.config[tensor]
        entry["path_name"] = path
        entry["tensor_meta"] |= {
            "sizes": [{"as_int": size} for size in layout.shape],
            "strides": [{"as_int": stride} for stride in layout.strides],
            "storage_offset": {"as_int": 0},
        }

    def _is_free(self, member: str) -> bool:
        return member not in self.archive.members and member not in self.new

    def add(self, tensor: str, like: str) -> None:
        """Lists a weight under one more name, as the same numbers for now."""
        self.config[tensor] = copy.deepcopy(self.config[like])
        self.tensors[tensor] = self.tensors[like]

    def forget(self, tensor: str) -> None:
        """Drops a weight, and spare names for it with it."""
        for name in [n for n in self.spare if self.are_alike(n, tensor)]:
            del self.config[name]
        self.config.pop(tensor, None)

    def notes(self) -> tuple[str, ...]:
        """What a reader should know beside the graph."""
        found = [
            f"{first} and {other} are two parameters on the same bytes, of which the program uses "
            "only one, in both places; a tie leaves one of them"
            for first, other in self.second_names()
        ]
        found += self._unused()
        if self._pickled:
            found.append(
                f"{len(self._pickled)} constants are pickled objects, which were not opened"
            )
        return tuple(found)

    def second_names(self) -> tuple[tuple[str, str], ...]:
        """Parameters that a tied module left in several names: the first of each, and another.

        The program uses one of the names at most, wherever the others belong.
        """
        parameters = {f.name: f.value for f in self.program.inputs if f.role == "parameter"}
        groups: dict[object, list[str]] = {}
        for name in self.config:
            if name in parameters:
                groups.setdefault(self.key(name), []).append(name)
        used = {read.value for h in self.holdings().by_name.values() for read in h.reads}
        return tuple(
            (first, other)
            for first, *others in groups.values()
            if sum(parameters[name] in used for name in (first, *others)) <= 1
            for other in others
        )

    def _unused(self) -> Iterator[str]:
        if unused := [name for name in self.spare if name not in self.aliases]:
            some = ", ".join(unused[:4])
            yield f"stored and not used by the program: {some} ({len(unused)} in all)"


def _turned(storage: Storage, perm: Perm | None) -> Array:
    array = storage.load()
    return array if perm is None else array.transpose(perm)


def _recorded(ours: Any, known: set[str]) -> Iterator[tuple[str, tuple[str, Perm | None]]]:
    """Names that a tie left, as far as what they are said to stand for is there."""
    names = ours.get("names") if isinstance(ours, dict) else None
    for name, said in names.items() if isinstance(names, dict) else ():
        if not isinstance(said, list) or len(said) != 2 or said[0] not in known or name in known:
            continue
        perm = said[1]
        if perm is None:
            yield name, (said[0], None)
        elif isinstance(perm, list) and sorted(perm) == list(range(len(perm))):
            yield name, (said[0], tuple(perm))
