"""A PyTorch file open for changes: each edit of the graph is made in the file's document too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tiesurgeon import edits
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph
from tiesurgeon.model import Change, Permissions, Step
from tiesurgeon.names import Spot
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.pytorch.check import check_written, tensors
from tiesurgeon.rooms.pytorch.document import Document, TorchFile
from tiesurgeon.rooms.pytorch.huggingface.document import FolderDocument
from tiesurgeon.rooms.pytorch.read import read_as, refuse_config

_SUFFIXES = {
    "torch-export": (".pt2",),
    "safetensors": (".safetensors",),
    "huggingface": (),
}
# What a name promises that is not the format of the input.
_PROMISES = frozenset({".h5", ".keras", ".hdf5", ".onnx", ".safetensors", ".pt2"})


@dataclass(frozen=True)
class TorchModel:
    """A file or folder of any of PyTorch's formats."""

    path: Path
    found: TorchFile
    permissions: Permissions

    @property
    def format(self) -> str:
        """A name of `formats.FORMATS`."""
        return self.found.format

    @property
    def graph(self) -> Graph:
        """As it was read."""
        return self.found.graph

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader had to say."""
        return self.found.notes

    @property
    def writes_folder(self) -> bool:
        """True for a Hugging Face folder."""
        return self.format == "huggingface"

    def refuse_unchangeable(self) -> None:
        """Every PyTorch file that can be read can be changed."""

    def refuse_output(self, output: Path) -> None:
        """UnsupportedFormat if the output's suffix belongs to another format."""
        own = _SUFFIXES.get(self.format, (self.path.suffix,))
        if output.suffix in _PROMISES and output.suffix not in own:
            raise UnsupportedFormat(
                f"-o {output}: a changed model keeps its format, which is {self.format}; "
                "use convert to write another"
            )

    def written_format(self, output: Path) -> str:
        """The format that was read."""
        return self.format

    def prepared(self, graph: Graph, one: Spot, other: Spot) -> tuple[Graph, str] | None:
        """Modules need no preparation."""
        return None

    def refuse_inexpressible(self, graph: Graph) -> None:
        """The document refuses what it cannot hold, tie by tie."""

    def tie(self, step: Step) -> None:
        """Makes the tie in the document; TieRefused, with nothing changed, where it cannot."""
        document = self.found.document
        document.tie(step.source, step.target, step.perm)
        if step.value is not None:
            document.assign(step.source, step.value)

    def untie(self, name: str) -> None:
        """Gives a name its own copy in the document."""
        self.found.document.untie(name)

    def write(self, change: Change, path: Path, *, full: bool) -> Result:
        """Writes the same format again, reads it back, and lets PyTorch judge it."""
        document = self.found.document
        change = replace(change, after=_completed(change.after, document))
        document.write(path, change.provenance)
        check_written(change.after, path, self.format)
        lines = tuple(f"your class  {line}" for line in document.code)
        if not full:
            return Result(Proof(reread=True), lines=lines)
        from tiesurgeon.rooms.pytorch.run import judge_change

        result = judge_change(self.found, self.path, path, change, self.permissions)
        return Result(result.proof, result.warnings, (*lines, *result.lines))

    def words(self, output: Path) -> tuple[str, ...]:
        """What the edits so far cost, after what the reader had to say."""
        return (*self.notes, *self.found.document.warnings)


def _completed(graph: Graph, document: Document) -> Graph:
    """The graph with what the flag of a Hugging Face config ties along."""
    along = document.companions if isinstance(document, FolderDocument) else ()
    for source, target in along:
        held = tensors(graph)
        graph = edits.tie(graph, held[source].variable, held[target].variable, None)
    return graph


def open_model(path: Path, format: str, permissions: Permissions) -> TorchModel:
    """Opens a PyTorch file or a Hugging Face folder."""
    refuse_config(path, permissions.config)
    return TorchModel(path, read_as(path, format), permissions)
