"""From one framework to the other: map the graph, write it, compare what both compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tiesurgeon import __version__, files
from tiesurgeon.errors import ProofFailed, TiesurgeonError
from tiesurgeon.graph import Array, Graph
from tiesurgeon.mapping.to_torch import to_torch
from tiesurgeon.outcome import Proof
from tiesurgeon.rooms.keras import run as keras_run
from tiesurgeon.rooms.keras import surgery
from tiesurgeon.rooms.keras.examples import example_inputs
from tiesurgeon.rooms.keras.write import write_keras
from tiesurgeon.rooms.pytorch.code import run as torch_run
from tiesurgeon.rooms.pytorch.code.check import check_folder, tied_names
from tiesurgeon.rooms.pytorch.code.write import write

_TOLERANCE = 1e-5


def keras_to_torch(
    graph: Graph, model: Path, output: Path, *, written_by: str, full: bool, force: bool
) -> surgery.Result:
    """Writes `model.py` and `model.safetensors` for a Keras graph, and proves them.

    Raises UnmappedLayer for a layer without a counterpart, ProofFailed where the module
    does not compute what Keras does; no output is left then.
    """
    mapped = to_torch(graph)
    with files.writing_folder(output, force=force, inputs=[model]) as folder:
        write(mapped, folder, source=model.name, version=__version__)
        check_folder(mapped, folder)
        warnings = tuple(_unusual_numbers(graph))
        if not full:
            return surgery.Result(Proof(reread=True), warnings)
        result = _compare(graph, mapped, model, folder, keras_run.writer(graph, written_by))
        return replace(result, warnings=(*warnings, *result.warnings))


def _compare(
    graph: Graph, mapped: Graph, model: Path, folder: Path, written_by: str
) -> surgery.Result:
    if not torch_run.is_installed():
        return _unproved("PyTorch is not installed here, so the module was not run")
    inputs = example_inputs(graph)
    module = torch_run.run(folder, inputs, tied_names(mapped))
    proof = Proof(reread=True, poke=module.poke, step=module.step)
    for what in ("poke", "step"):
        if getattr(proof, what) is False:
            raise ProofFailed(f"the module's tied parameters fail the {what} check")
    if not keras_run.is_installed():
        word = "Keras is not installed here, so outputs were not compared with the original's"
        return surgery.Result(proof, (word,))
    expected, warnings = _keras_outputs(graph, model, inputs, written_by)
    if expected is None:
        return surgery.Result(proof, warnings)
    difference = largest_difference(expected, module.outputs)
    scale = max([1.0, *(float(np.max(np.abs(y[np.isfinite(y)]), initial=0.0)) for y in expected)])
    if not difference <= _TOLERANCE * scale:
        raise ProofFailed(
            f"the PyTorch module's outputs differ from Keras' by {difference:.3g}, expected at "
            f"most {_TOLERANCE * scale:.3g}; please report this model's layers"
        )
    return surgery.Result(replace(proof, max_abs_diff=difference), warnings)


def _unproved(reason: str) -> surgery.Result:
    return surgery.Result(Proof(reread=True), (reason,))


def _keras_outputs(
    graph: Graph, model: Path, inputs: Mapping[str, Array], written_by: str
) -> tuple[tuple[Array, ...] | None, tuple[str, ...]]:
    """What the original gives; where nothing opens it, what its modern form gives."""
    try:
        return keras_run.outputs(model, inputs, written_by), ()
    except TiesurgeonError:
        pass
    with TemporaryDirectory(prefix="tiesurgeon-modern-") as folder:
        modern = Path(folder, "modern.keras")
        try:
            write_keras(surgery.expressible(graph), modern, provenance={})
            found = keras_run.outputs(modern, inputs, "keras 3")
        except TiesurgeonError as error:
            return None, (f"outputs were not compared: Keras cannot run the model ({error})",)
    return found, ("no Keras here opens the original: outputs were compared with its modern form",)


def largest_difference(one: tuple[Array, ...], other: tuple[Array, ...]) -> float:
    """Over all outputs; infinite where their number or shapes differ."""
    if [y.shape for y in one] != [y.shape for y in other]:
        return float("inf")
    return max((_gap(a, b) for a, b in zip(one, other, strict=True)), default=0.0)


def _gap(one: Array, other: Array) -> float:
    """Equal infinities, and NaN in the same places, are no difference."""
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(same, 0.0, np.abs(one - other)), initial=0.0))


def _unusual_numbers(graph: Graph) -> Iterator[str]:
    for variable in graph.variables():
        if variable.storage.dtype.kind != "f":
            continue
        array = variable.storage.load()
        rows = array.reshape(array.shape[0], -1) if array.ndim > 1 else array.reshape(1, -1)
        step = max(1, (1 << 22) // max(rows.shape[1], 1))
        blocks = (rows[start : start + step] for start in range(0, rows.shape[0], step))
        if not all(bool(np.isfinite(block).all()) for block in blocks):
            yield f"{variable.name} holds NaN or infinite numbers; they were kept"
