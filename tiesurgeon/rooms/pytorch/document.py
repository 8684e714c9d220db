"""A PyTorch file open to edits: what every kind of file can do, whatever it looks like inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tiesurgeon.edits import Perm
from tiesurgeon.graph import Array, Graph


class Document(Protocol):
    """The content of a file, changed in memory only; `write` makes a new file of it.

    Variables go by their full names as the graph has them (`decoder.weight`). Edits must
    leave the file able to be read as `edits.tie` and `edits.untie` leave the graph.
    """

    def tie(self, source: str, target: str, perm: Perm | None) -> None:
        """Makes `target` the same as `source`, transposed by `perm` (None: as it is).

        Raises TieRefused, naming a format that can, where this one cannot express it.
        """

    def assign(self, name: str, value: Array) -> None:
        """Gives a variable other numbers, of the shape and dtype that its layer sees."""

    def untie(self, name: str) -> None:
        """Gives a name a copy of its own of the numbers it shares with others."""

    def write(self, path: Path, provenance: Mapping[str, Any]) -> None:
        """Writes the whole file (or folder, which exists and is empty) to a new path.

        `provenance` says where it came from and is stored where the format has a place for
        it. Bytes that no edit touched are copied in bounded memory.
        """

    @property
    def warnings(self) -> Sequence[str]:
        """What the edits so far cost: a dropped optimizer state, a padding row that will train."""

    @property
    def code(self) -> Sequence[str]:
        """Lines that the user's own class needs for the ties to hold; none where the file is
        enough."""


@dataclass(frozen=True)
class TorchFile:
    """What a PyTorch file holds. `format` is a name of `formats.FORMATS`.

    `classes` are the dotted names of the Python classes that opening it runs, beside those of
    PyTorch itself (none: it opens with `weights_only=True`, or without a pickle).
    """

    format: str
    graph: Graph
    writer: str
    document: Document
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
