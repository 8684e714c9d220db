"""An exported program open to edits: parameters merged into one placeholder, or given their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiesurgeon.edits import Perm, compose, inverse
from tiesurgeon.errors import ShapeMismatch, TieRefused, UnknownName
from tiesurgeon.graph import Array
from tiesurgeon.rooms.pytorch.containers.zip_writer import ArchiveWriter
from tiesurgeon.rooms.pytorch.containers.zips import Archive
from tiesurgeon.rooms.pytorch.exported.content import MODEL, Content
from tiesurgeon.rooms.pytorch.exported.costs import costs, refuse_unsharable
from tiesurgeon.rooms.pytorch.exported.holdings import Holding, Holdings
from tiesurgeon.rooms.pytorch.exported.payloads import WEIGHTS, WEIGHTS_CONFIG
from tiesurgeon.rooms.pytorch.exported.surgery import send, send_reads
from tiesurgeon.rooms.pytorch.streaming import raw_blocks

_COMPILED = "data/aotinductor/"
_OF_THE_OLD_FILE = ".data/serialization_id"  # a hash of its members


class ExportedDocument:
    """The program of a `.pt2` file, in which a tie is one placeholder that two modules use."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._program = content.program
        self._warnings: list[str] = []

    def tie(self, source: str, target: str, perm: Perm | None) -> None:
        """Sends every use of the target to the source's placeholder, and drops the target's."""
        self._refuse_compiled()
        holdings = self._content.holdings()
        kept, gone = _named(holdings, source), _named(holdings, target)
        if kept.tensor == gone.tensor:
            raise TieRefused(f"{source} and {target} are one parameter already")
        turn = compose(compose(kept.perm, perm), inverse(gone.perm))
        refuse_unsharable(self._program, holdings, kept, gone)
        self._refuse_misfit(kept.tensor, gone.tensor, turn)
        self._warnings += costs(self._program, holdings, kept, gone)
        self._settle(kept.tensor)
        self._settle(gone.tensor)
        holdings = self._content.holdings()
        old, new = self._value(gone.tensor), self._value(kept.tensor)
        send(self._program, old, new, turn)
        self._program.drop_input(old)
        aliases = self._content.aliases
        for holding in holdings.of(gone.tensor):
            aliases[holding.name] = kept.tensor, compose(turn, holding.perm)
            if not holding.reads:
                self._content.idle.add(holding.name)
        for name, (tensor, seen) in list(aliases.items()):
            if tensor == gone.tensor:
                aliases[name] = kept.tensor, compose(turn, seen)
        self._content.forget(gone.tensor)

    def assign(self, name: str, value: Array) -> None:
        """Gives a parameter other numbers, in a member of its own."""
        self._refuse_compiled()
        holding = _named(self._content.holdings(), name)
        back = inverse(holding.perm)
        logical = value if back is None else value.transpose(back)
        held = self._content.tensors[holding.tensor].layout
        if logical.shape != held.shape or logical.dtype != held.dtype:
            raise AssertionError(f"{name}: {value.dtype} {value.shape} is not what it holds")
        self._settle(holding.tensor)
        self._content.store(holding.tensor, logical)

    def untie(self, name: str) -> None:
        """Gives a name a parameter of its own again, at the end of the parameters."""
        self._refuse_compiled()
        self._settle(_named(self._content.holdings(), name).tensor)
        holdings = self._content.holdings()
        holding = _named(holdings, name)
        if not holding.is_own:
            self._part(holdings, [holding])
            return
        others = [other for other in holdings.of(holding.tensor) if not other.is_own]
        if others:
            self._part(holdings, others)
        if any(n != name and self._shares_bytes(n, name) for n in self._content.config):
            self._content.store(name, self._content.load(name))

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes the archive anew; bytes of weights that stay are copied as they are."""
        self._content.sign(provenance)
        whole = {
            MODEL: json.dumps(self._program.raw).encode(),
            WEIGHTS_CONFIG: json.dumps({"config": self._content.config}).encode(),
        }
        used = {f"{WEIGHTS}{entry['path_name']}" for entry in self._content.config.values()}
        archive = self._content.archive
        with ArchiveWriter(path, archive.root) as writer:
            for name in archive.names:
                if name in whole:
                    writer.add(name, [whole[name]], len(whole[name]))
                elif name != _OF_THE_OLD_FILE and (name in used or not _is_weight(archive, name)):
                    writer.copy(archive, name)
            for name, array in self._content.new.items():
                if name in used:
                    writer.add(name, raw_blocks(array), array.nbytes)

    @property
    def warnings(self) -> Sequence[str]:
        """What the ties so far cost."""
        return tuple(dict.fromkeys(self._warnings))

    @property
    def code(self) -> Sequence[str]:
        """Nothing: the program is its own code."""
        return ()

    # --- steps --------------------------------------------------------------------------------

    def _refuse_compiled(self) -> None:
        if any(name.startswith(_COMPILED) for name in self._content.archive.names):
            raise TieRefused(
                "the file also holds the model compiled by AOTInductor, with weights that an edit "
                "would not reach; save the program alone with torch.export.save"
            )

    def _refuse_misfit(self, source: str, target: str, turn: Perm | None) -> None:
        one, other = self._content.tensors[source].layout, self._content.tensors[target].layout
        shape = one.shape if turn is None else tuple(one.shape[axis] for axis in turn)
        if shape != other.shape:
            raise ShapeMismatch(
                f"{source} would be seen as {shape} and {target} has shape {other.shape}"
            )
        if one.dtype != other.dtype:
            raise TieRefused(f"{source} is {one.dtype} and {target} is {other.dtype}")

    def _settle(self, tensor: str) -> None:
        """Gives modules their own parameters to use, where PyTorch let them use one for several.

        It writes a tied module that way: one of the names is used everywhere, the others are
        parameters that nothing uses.
        """
        for holding in self._content.holdings().by_name.values():
            alike = self._content.are_alike(holding.tensor, tensor)
            if holding.is_own and alike:
                own = self._value(holding.tensor)
                strangers = [read for read in holding.reads if read.value != own]
                send_reads(self._program, strangers, own, None)

    def _part(self, holdings: Holdings, names: Sequence[Holding]) -> None:
        """Gives the first of the names a parameter, and the others that one."""
        first = names[0]
        self._refuse_entangled(holdings, names)
        array = self._content.load(first.tensor)
        array = array if first.perm is None else array.transpose(first.perm)
        meta = self._program.metas[self._value(first.tensor)]
        self._content.add(first.name, first.tensor)
        self._content.store(first.name, array)
        said = self._content.config[first.name]["tensor_meta"]
        value = self._program.add_parameter(first.name, {**meta, **said})
        self._content.aliases.pop(first.name, None)
        self._content.idle.discard(first.name)
        for name in names:
            send_reads(self._program, name.reads, value, first.perm)
            if name is not first:
                relation = compose(inverse(first.perm), name.perm)
                self._content.aliases[name.name] = first.name, relation

    def _refuse_entangled(self, holdings: Holdings, names: Sequence[Holding]) -> None:
        """TieRefused where the graph turns a weight once for several users."""
        moved = {id(read.slot[0]) for name in names for read in name.reads}
        if not moved:
            raise TieRefused(f"{names[0].name} is used nowhere in the program, so cannot be untied")
        others = (o for o in holdings.of(names[0].tensor) if all(o is not n for n in names))
        if any(id(read.slot[0]) in moved for other in others for read in other.reads):
            raise TieRefused(
                f"{names[0].name} is {names[0].tensor} turned by an operator that others use too; "
                "change it in the code and export it again"
            )

    def _shares_bytes(self, one: str, other: str) -> bool:
        config = self._content.config
        return bool(config[one]["path_name"] == config[other]["path_name"])

    def _value(self, tensor: str) -> str:
        return self._program.input_of(tensor).value


def _named(holdings: Holdings, name: str) -> Holding:
    found = holdings.by_name.get(name)
    if found is None:
        raise UnknownName(f"no weight of this program is named {name!r}")
    return found


def _is_weight(archive: Archive, name: str) -> bool:
    return name.startswith(WEIGHTS) and name != WEIGHTS_CONFIG
