"""An ONNX file open for changes: each edit of the graph is made in its protobuf too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tiesurgeon.errors import OutputRefused, UnsupportedFormat
from tiesurgeon.graph import Graph
from tiesurgeon.model import Change, Permissions, Step
from tiesurgeon.names import Spot
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.onnx.check import check_written
from tiesurgeon.rooms.onnx.read import OnnxFile, read
from tiesurgeon.rooms.onnx.write import data_name


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file, with its external data if it has any."""

    path: Path
    found: OnnxFile
    permissions: Permissions
    format: str = "onnx"
    writes_folder: bool = False

    @property
    def graph(self) -> Graph:
        """As it was read."""
        return self.found.graph

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader had to say."""
        return self.found.notes

    def refuse_unchangeable(self) -> None:
        """Every ONNX file that can be read can be changed."""

    def refuse_output(self, output: Path) -> None:
        """UnsupportedFormat unless it ends in .onnx; OutputRefused if its data is the input's."""
        if output.suffix != ".onnx":
            raise UnsupportedFormat(f"-o {output}: a changed ONNX model is written as .onnx")
        data = output.with_name(data_name(output.name))
        if any(data.exists() and data.samefile(own) for own in self.found.document.data_files):
            raise OutputRefused(
                f"{data} holds the input's numbers and is never changed; give another output"
            )

    def written_format(self, output: Path) -> str:
        """Always onnx."""
        return self.format

    def prepared(self, graph: Graph, one: Spot, other: Spot) -> tuple[Graph, str] | None:
        """Nodes need no preparation."""
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
        """Writes the file, and its external data as `<name>.data` beside it, and proves it."""
        document = self.found.document
        document.write(path, change.provenance)
        words = check_written(change.after, document, path)
        if not full:
            return Result(Proof(reread=True), words)
        from tiesurgeon.rooms.onnx.run import judge_change

        result = judge_change(self.path, path, change, document, self.permissions.example_inputs)
        return Result(result.proof, (*words, *result.warnings), result.lines)

    def words(self, output: Path) -> tuple[str, ...]:
        """What the edits so far cost, after what the reader had to say."""
        return (*self.notes, *self.found.document.warnings)


def open_model(path: Path, format: str, permissions: Permissions) -> OnnxModel:
    """Opens an ONNX file."""
    if permissions.config is not None:
        raise UnsupportedFormat(f"{path}: --config is for Keras weights, and this is an ONNX file")
    found = read(path)
    found.document.head = permissions.onnx_head
    return OnnxModel(path, found, permissions)
