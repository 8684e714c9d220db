"""An ONNX file that can be called on arrays, by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tiesurgeon.errors import CannotRun, MissingFramework, ProofFailed
from tiesurgeon.graph import Array, Graph, Layer, values_in
from tiesurgeon.rooms.onnx.read import read
from tiesurgeon.rooms.onnx.run import is_installed
from tiesurgeon.running import Ran, Runnable, Wanted, Weights, rows_below
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("outputs_script.py")
_PASSING = frozenset(
    "Cast Identity Reshape Squeeze Unsqueeze Flatten Transpose Slice Expand Clip Concat".split()
)


@dataclass(frozen=True)
class RunnableOnnx:
    """An ONNX file."""

    path: Path
    graph: Graph
    format: str = "onnx"

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """As its graph says."""
        return tuple(
            Wanted(
                layer.name,
                tuple(layer.config["shape"]) if "shape" in layer.config else None,
                str(layer.config.get("dtype", "")),
                rows_below(self.graph, value, _rows, _PASSING),
            )
            for value in values_in(self.graph.inputs)
            for layer in [self.graph.layer(value.call)]
        )

    def run(self, inputs: Mapping[str, Array] | None, ids: frozenset[str]) -> Ran:
        """The outputs, by their names."""
        assert inputs is not None  # they are wanted by name
        with TemporaryDirectory(prefix="tiesurgeon-run-") as place:
            given, got = Path(place, "inputs.npz"), Path(place, "outputs.npz")
            np.savez(given, **inputs)  # type: ignore[arg-type]
            spec = {"model": str(self.path.resolve()), "inputs": str(given), "outputs": str(got)}
            try:
                told = ask(SCRIPT, spec, Path(place))
            except ProofFailed as error:
                raise CannotRun(f"{self.path}: {error.__cause__ or error}") from None
            if "failed" in told:
                raise CannotRun(f"{self.path}: ONNX Runtime says: {told['failed']}")
            with np.load(got) as arrays:
                held = [arrays[key] for key in arrays.files]  # in the order of `names`
                outputs = tuple(zip(told["names"], held, strict=True))
        skipped = f"{self.path}: {', '.join(told['skipped'])} hold no numbers: not compared"
        return Ran(outputs, inputs, warnings=(skipped,) if told["skipped"] else ())


def open_runnable(path: Path, format: str, *, trust_code: bool) -> Runnable | Weights:
    """Opens an ONNX file; what it names outside of its folder is refused before it is run."""
    found = read(path)
    if not is_installed():
        raise MissingFramework(
            f'{path} is run by ONNX Runtime, which is not installed; pip install "tiesurgeon[onnx]"'
        )
    return RunnableOnnx(path, found.graph)


def _rows(layer: Layer) -> int | None:
    """The rows of a table; ids are below in each."""
    if layer.op != "Gather":
        return None
    table = layer.view("data")
    axis = int(layer.config.get("axis", 0))
    return table.shape[axis] if table is not None and len(table.shape) == 2 else None
