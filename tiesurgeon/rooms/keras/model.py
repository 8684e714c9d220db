"""A Keras file open for changes: edits are the graph's, the file is written anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Array, Graph
from tiesurgeon.model import Change, Permissions, Step
from tiesurgeon.names import Spot
from tiesurgeon.outcome import Result
from tiesurgeon.rooms.keras import recipes, surgery
from tiesurgeon.rooms.keras.read import KerasFile, read
from tiesurgeon.rooms.keras.running import outputs_of


@dataclass(frozen=True)
class KerasModel:
    """A whole model, or weights that were given their architecture."""

    path: Path
    format: str
    found: KerasFile
    has_config_apart: bool = False
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
        """UnsupportedFormat where the file holds no graph."""
        if self.graph.calls:
            return
        if self.graph.op in ("", "Sequential"):
            raise UnsupportedFormat(
                f"{self.path}: holds weights but no graph; give the architecture with --config "
                "model.json (model.to_json())"
            )
        raise UnsupportedFormat(
            f"{self.path}: {self.graph.op} is a subclassed model, whose graph is Python code and "
            "not in the file; rebuild it with the functional API to change it"
        )

    def refuse_output(self, output: Path) -> None:
        """UnsupportedFormat unless it ends like a Keras file."""
        if output.suffix not in surgery.SUFFIXES:
            raise UnsupportedFormat(
                f"{output.name}: a Keras model is written as .keras or .h5, not "
                f"{output.suffix or 'this'}"
            )

    def written_format(self, output: Path) -> str:
        """Either file of Keras can be written, whichever was read."""
        return "keras-v3" if output.suffix == ".keras" else "keras-h5"

    def prepared(self, graph: Graph, one: Spot, other: Spot) -> tuple[Graph, str] | None:
        """A forum recipe (`DenseTied`, `TiedEmbeddingsTransposed`) read as a Dense."""
        if other.view is not None and not recipes.is_recipe(other.layer):
            return None
        assert one.view is not None
        warning = (
            f"{other.path} ({other.layer.op}) was read as a Dense over the transposed "
            f"{one.variable}; its own code was not run, so compare the outputs yourself"
        )
        return recipes.as_dense(graph, other.path, one.view.variable), warning

    def refuse_inexpressible(self, graph: Graph) -> None:
        """TieRefused if stock Keras has no layers for it."""
        surgery.expressible(graph)

    def tie(self, step: Step) -> None:
        """Nothing more: the graph is what will be written."""

    def untie(self, name: str) -> None:
        """Nothing more: the graph is what will be written."""

    def write(self, change: Change, path: Path, *, full: bool) -> Result:
        """Writes `.keras` or `.h5`, as the path says."""
        order = surgery.Order(
            before=change.before,
            after=change.after,
            original=None if self.has_config_apart else self.path,
            provenance=change.provenance,
            training=self.found.training,
            written_by=self.found.writer,
            values_changed=change.values_changed,
        )
        return surgery.produce(order, path, full=full)

    def ran_on(self, inputs: Mapping[str, Array]) -> tuple[tuple[Array, ...], tuple[str, ...]]:
        """What the original makes of inputs by name, flat, and warnings.

        Raises CannotRun where neither it nor its modern form can be run.
        """
        return outputs_of(self.graph, self.path, inputs, self.found.writer)

    def words(self, output: Path) -> tuple[str, ...]:
        """What the file had and the output will not have."""
        if self.found.training is None or output.suffix not in surgery.SUFFIXES:
            return self.notes
        return (*self.notes, "the model was compiled and still is, but its optimizer starts afresh")


def open_model(path: Path, format: str, permissions: Permissions) -> KerasModel:
    """Opens a Keras file; `permissions.config` is the architecture for weights only."""
    found = read(path, config=permissions.config)
    return KerasModel(path, format, found, has_config_apart=permissions.config is not None)
