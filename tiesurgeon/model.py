"""A model file open for changes, whatever its format: what every room offers to the verbs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from tiesurgeon.edits import Perm
from tiesurgeon.graph import Array, Graph
from tiesurgeon.names import Spot
from tiesurgeon.outcome import Result


@dataclass(frozen=True)
class Permissions:
    """What the user allows and gives beside the file.

    config          the architecture, for a file of weights only
    trust_code      whether classes that the file names may be imported and run
    example_inputs  an `.npz` of arrays on which the model can be called
    opset           the version of ONNX's operators to write; None: the exporter's own
    onnx_head       how a tied projection is written in ONNX: as a Gemm, or over the transposed
                    activation, of which ONNX Runtime keeps one copy in memory
    """

    config: Path | None = None
    trust_code: bool = False
    example_inputs: Path | None = None
    opset: int | None = None
    onnx_head: Literal["gemm", "activation"] = "gemm"


@dataclass(frozen=True)
class Step:
    """`target` becomes `source`, transposed by `perm`; both are full names of variables.

    `value`, of the shape in which the source's layer sees it, replaces the source's numbers.
    """

    source: str
    target: str
    perm: Perm | None
    value: Array | None = None


@dataclass(frozen=True)
class Change:
    """What is to be written: `before` as it was read, `after` as it is to be.

    `values_changed`: the tie put other numbers in place, so outputs differ from before.
    `provenance` is written where the format has a place for it.
    """

    before: Graph
    after: Graph
    provenance: Mapping[str, Any]
    steps: tuple[Step, ...] = ()
    values_changed: bool = False


class Model(Protocol):
    """An opened file. Changes are made in memory, in step with a graph; `write` makes a file."""

    @property
    def path(self) -> Path:
        """The file or folder, which is never written to."""

    @property
    def format(self) -> str:
        """A name of `formats.FORMATS`."""

    @property
    def graph(self) -> Graph:
        """As it was read."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader had to say."""

    @property
    def writes_folder(self) -> bool:
        """True if a changed model is a folder."""

    def refuse_unchangeable(self) -> None:
        """UnsupportedFormat, with what to do, if this file can be looked at but not changed."""

    def refuse_output(self, output: Path) -> None:
        """UnsupportedFormat if the name of an output promises another format."""

    def written_format(self, output: Path) -> str:
        """The format of a changed model under that name."""

    def prepared(self, graph: Graph, one: Spot, other: Spot) -> tuple[Graph, str] | None:
        """The graph in which a custom layer is read as what it stands for, and a warning.

        None if nothing has to be done to both places before they can be tied.
        """

    def refuse_inexpressible(self, graph: Graph) -> None:
        """TieRefused if the format has no way to say that graph."""

    def tie(self, step: Step) -> None:
        """Makes one tie; TieRefused, with nothing changed, where the format cannot hold it."""

    def untie(self, name: str) -> None:
        """Gives a variable's name numbers of its own."""

    def write(self, change: Change, path: Path, *, full: bool) -> Result:
        """Writes all to a new path and proves it; ProofFailed if that is not what was meant."""

    def words(self, output: Path) -> tuple[str, ...]:
        """What the file had and the output will not have, and what the ties so far cost."""


def size_on_disk(path: Path) -> int:
    """Bytes of a file, with those of its external data, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    beside = (path.with_name(f"{path.name}{end}") for end in (".data", "_data"))
    return path.stat().st_size + sum(file.stat().st_size for file in beside if file.is_file())
