"""A safetensors file open to edits: names are dropped, recorded, given back; bytes are copied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiesurgeon.edits import Perm
from tiesurgeon.errors import TieRefused
from tiesurgeon.graph import Array, in_memory
from tiesurgeon.rooms.pytorch.assignments import assignment
from tiesurgeon.rooms.pytorch.safetensors.header import Header
from tiesurgeon.rooms.pytorch.safetensors.write import (
    PROVENANCE,
    Tensor,
    loaded,
    marked,
    stored,
    write_tensors,
)


class SafetensorsDocument:
    """Tensors by name, and names that are recorded as being one of them.

    The file cannot hold a tie: `safetensors.torch.load_model` accepts it with the alias
    missing only where the class makes the tie, with the line that `code` gives.
    """

    def __init__(self, header: Header, aliases: Mapping[str, str]) -> None:
        by_place = sorted(header.entries.items(), key=lambda item: item[1].extent.start)
        self._tensors: dict[str, Tensor] = {name: stored(entry) for name, entry in by_place}
        self._aliases = dict(aliases)
        self._metadata = {k: v for k, v in header.metadata.items() if k not in aliases}

    def tie(self, source: str, target: str, perm: Perm | None) -> None:
        """Drops the target's numbers and records its name; TieRefused for a transposed tie."""
        if perm is not None:
            raise TieRefused(
                f"{target} would be {source} transposed, which a safetensors file cannot say; "
                "convert it first: a .pt state dict, a whole module and .pt2 can"
            )
        if self._aliases.get(source) == target:
            self._promote(source)
        owner, dropped = self._owner(source), self._owner(target)
        if owner != dropped:
            del self._tensors[dropped]
            self._redirect(dropped, owner)

    def assign(self, name: str, value: Array) -> None:
        """Gives a tensor, and all names recorded for it, other numbers."""
        owner = self._owner(name)
        self._tensors[owner] = loaded(owner, in_memory(owner, value))

    def untie(self, name: str) -> None:
        """Stores the numbers under this name too, and records it no longer."""
        sharing = [alias for alias, owner in self._aliases.items() if owner == name]
        if sharing:
            self._promote(sharing[0])
        if name in self._aliases:
            self._tensors[name] = self._tensors[self._aliases.pop(name)]

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes a new file; bytes that no edit touched are copied by the system."""
        mark = marked(provenance)
        kept = {key: text for key, text in self._metadata.items() if key != PROVENANCE}
        write_tensors(path, self._tensors, mark | kept | self._aliases)

    @property
    def warnings(self) -> Sequence[str]:
        """None: nothing but numbers is in the file."""
        return ()

    @property
    def code(self) -> Sequence[str]:
        """A line for each name that the file only records."""
        return [assignment(owner, alias) for alias, owner in self._aliases.items()]

    def _owner(self, name: str) -> str:
        return self._aliases.get(name, name)

    def _promote(self, alias: str) -> None:
        """Stores the numbers under this name, and records the one that had them."""
        owner = self._aliases.pop(alias)
        self._tensors[alias] = self._tensors.pop(owner)
        self._redirect(owner, alias)

    def _redirect(self, name: str, owner: str) -> None:
        """Records a name, and all that was recorded as being it, as the owner."""
        for alias, known in self._aliases.items():
            if known == name:
                self._aliases[alias] = owner
        self._aliases[name] = owner
