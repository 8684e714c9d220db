"""A SavedModel open for changes: a Keras graph, written by TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tiesurgeon.errors import CannotRun, ProofFailed, UnsupportedFormat
from tiesurgeon.graph import Array, values_in
from tiesurgeon.model import Change, Permissions
from tiesurgeon.outcome import Result
from tiesurgeon.rooms.keras import surgery as keras_surgery
from tiesurgeon.rooms.keras.model import KerasModel
from tiesurgeon.rooms.savedmodel import run, surgery
from tiesurgeon.rooms.savedmodel.read import is_export, read
from tiesurgeon.rooms.savedmodel.saved_model import read_saved_model

_KEPT = ("serving_default", "serve")  # the model as Keras calls it


@dataclass(frozen=True)
class SavedModel(KerasModel):
    """A folder. Changed, it is a folder again; converted, `.keras` or `.h5`."""

    writes_folder: bool = True

    def refuse_unchangeable(self) -> None:
        """UnsupportedFormat where there are no Keras layers in it."""
        if is_export(self.found):
            raise UnsupportedFormat(
                f"{self.path}: an export holds functions and variables, but no Keras layers that "
                "could be changed or converted; save the model itself (model.save('model.keras')) "
                "and use that"
            )
        super().refuse_unchangeable()

    def refuse_output(self, output: Path) -> None:
        """UnsupportedFormat if the name promises a file."""
        if output.suffix in (*keras_surgery.SUFFIXES, ".pb"):
            raise UnsupportedFormat(f"{output.name}: a SavedModel is a folder; give another output")

    def written_format(self, output: Path) -> str:
        """A SavedModel becomes one."""
        return "savedmodel"

    def outputs(self, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
        """What TensorFlow makes of inputs by name, flat; ProofFailed where it is not run."""
        return run.outputs(self.path, self.graph, inputs)

    def ran_on(self, inputs: Mapping[str, Array]) -> tuple[tuple[Array, ...], tuple[str, ...]]:
        """The same, run by TensorFlow."""
        try:
            return self.outputs(inputs), ()
        except ProofFailed as error:
            raise CannotRun(f"{self.path}: {error.__cause__ or error}") from None

    def write(self, change: Change, path: Path, *, full: bool) -> Result:
        """Writes a folder, or the Keras file that the path's suffix says."""
        order = keras_surgery.Order(
            before=change.before,
            after=change.after,
            original=None,
            provenance=change.provenance,
            training=self.found.training,
            written_by=self.found.writer,
            values_changed=change.values_changed,
            run_original=self.outputs,
        )
        is_file = path.suffix in keras_surgery.SUFFIXES
        produce = keras_surgery.produce if is_file else surgery.produce
        return produce(order, path, full=full)

    def words(self, output: Path) -> tuple[str, ...]:
        """What the folder had and the output will not have."""
        return (*self.notes, *self._lost())

    def _lost(self) -> Iterator[str]:
        if self.found.training is not None:
            yield "the state of its optimizer is not kept"
        inputs = {self.graph.call_by_id[v.call].layer for v in values_in(self.graph.inputs)}
        for name, signature in read_saved_model(self.path / "saved_model.pb").signatures.items():
            if name not in _KEPT or set(signature.inputs) != inputs:
                yield f"signature {name}: {signature} is TensorFlow code and is not kept"


def open_model(path: Path, format: str, permissions: Permissions) -> SavedModel:
    """Opens a SavedModel; UnsupportedFormat for a `permissions.config`."""
    return SavedModel(path, format, read(path, config=permissions.config))
