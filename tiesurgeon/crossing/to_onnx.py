"""From Keras or PyTorch to ONNX: PyTorch's exporter writes it, then its ties are made to last.

A Keras model becomes a PyTorch module first. The exporter writes a tied projection as a Transpose
and a MatMul, and every optimiser folds the Transpose into a second matrix; so it is written anew.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiesurgeon import __version__
from tiesurgeon.crossing.to_torch import called_several_times
from tiesurgeon.errors import ProofFailed
from tiesurgeon.graph import Graph, Layer, values_in
from tiesurgeon.mapping.to_torch import to_torch
from tiesurgeon.model import Permissions
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.keras.examples import example_inputs
from tiesurgeon.rooms.keras.model import KerasModel
from tiesurgeon.rooms.onnx.check import refuse_invalid
from tiesurgeon.rooms.onnx.poke import poked
from tiesurgeon.rooms.onnx.read import read
from tiesurgeon.rooms.pytorch import run as torch_run
from tiesurgeon.rooms.pytorch.code.check import tied_names
from tiesurgeon.rooms.pytorch.code.write import write
from tiesurgeon.rooms.pytorch.export import export as export_program
from tiesurgeon.rooms.pytorch.model import TorchModel
from tiesurgeon.rooms.pytorch.onnx.export import OPSET, Traced, export

_INSIDE = 1_500_000_000  # bytes of weights in the file itself; protobuf ends at 2 GB


def keras_to_onnx(
    model: KerasModel,
    path: Path,
    permissions: Permissions,
    provenance: Mapping[str, Any],
    *,
    full: bool,
) -> Result:
    """Writes an opened Keras model, or SavedModel with its layers, as an ONNX file.

    Raises UnmappedLayer for a layer without a counterpart in PyTorch, ProofFailed where the
    exporter fails.
    """
    mapped = to_torch(model.graph)
    with TemporaryDirectory(prefix="tiesurgeon-module-") as place:
        folder = Path(place, "module")
        folder.mkdir()
        write(mapped, folder, source=model.path.name, version=__version__)
        groups = tied_names(mapped)
        inputs = _input_layers(model.graph)
        names = list(_unique([*(layer.name for layer in inputs), *_output_names(mapped)]))
        traced = Traced(
            "folder",
            folder,
            dict(zip(names, example_inputs(model.graph).values(), strict=False)),
            [_open_axes(layer) for layer in inputs],
            input_names=names[: len(inputs)],
            output_names=names[len(inputs) :],
            owners={name: group[0] for group in groups for name in group[1:]},
        )
        result = _written(traced, path, permissions, provenance, _size(mapped), full=full)
    words = called_several_times(model.graph, groups) if full else ()
    return replace(result, warnings=(*result.warnings, *words))


def torch_to_onnx(
    model: TorchModel, path: Path, provenance: Mapping[str, Any], *, full: bool
) -> Result:
    """Writes a PyTorch model as an ONNX file; a module is made an exported program first.

    Raises UnsupportedFormat, with what to do, for what cannot be traced, and ProofFailed where
    the exporter fails.
    """
    owners = {target: source for source, target, _ in torch_run.ties(model.graph)}
    with TemporaryDirectory(prefix="tiesurgeon-program-") as place:
        program, result = model.path, Result(Proof())
        if model.format != "torch-export":
            program = Path(place, "program.pt2")
            result = export_program(
                model.found, model.path, program, model.permissions, {}, full=False
            )
        traced = Traced("torch-export", program, owners=owners)
        size = _size(model.graph)
        written = _written(traced, path, model.permissions, provenance, size, full=full)
    return replace(written, warnings=(*result.warnings, *written.warnings), lines=result.lines)


def _written(
    traced: Traced,
    path: Path,
    permissions: Permissions,
    provenance: Mapping[str, Any],
    size: int,
    *,
    full: bool,
) -> Result:
    with TemporaryDirectory(prefix="tiesurgeon-onnx-") as place:
        raw = Path(place, path.name)
        pokes = export(
            traced,
            raw,
            opset=permissions.opset or OPSET,
            external_data=size > _INSIDE,
            pokes=Path(place) if full else None,
        )
        document = read(raw).document
        document.head = permissions.onnx_head
        document.settle()
        document.write(path, provenance)
        refuse_untied(path, traced.owners)
        refuse_invalid(path)
        result = Result(Proof(reread=True), tuple(document.warnings))
        if not full:
            return result
        result = poked(result, path, pokes)
    return _with_what_is_missing(result, traced)


def _with_what_is_missing(result: Result, traced: Traced) -> Result:
    words = []
    if traced.owners:
        words.append("an ONNX file is not trained, so no optimizer step was taken")
        if result.proof.poke is None and not result.warnings:
            words.append("the one matrix was not poked: the exported model has no such parameter")
    return replace(result, warnings=(*result.warnings, *words))


def refuse_untied(path: Path, owners: Mapping[str, str]) -> None:
    """ProofFailed if the file, read again, holds a tied parameter under a second name."""
    again = read(path)
    names = {variable.name for variable in again.graph.variables()}
    for name, owner in owners.items():
        if name in names:
            raise ProofFailed(f"the exporter wrote {owner} twice, also as {name}")


def _size(graph: Graph) -> int:
    return sum(variable.storage.nbytes for variable in graph.variables())


def _input_layers(graph: Graph) -> list[Layer]:
    return [graph.layer(graph.call_by_id[value.call].layer) for value in values_in(graph.inputs)]


def _output_names(graph: Graph) -> list[str]:
    return [output["name"] for output in graph.config["outputs"]]


def _unique(names: Iterable[str]) -> Iterator[str]:
    """The names, with a number where one came before: a layer may give several outputs."""
    taken: set[str] = set()
    for name in names:
        numbered = (f"{name}_{number}" for number in itertools.count(1))
        free = next(one for one in itertools.chain([name], numbered) if one not in taken)
        taken.add(free)
        yield free


def _open_axes(layer: Layer) -> list[int]:
    """Axes whose length the model leaves open, the batch first of all."""
    dims = layer.config.get("batch_shape") or layer.config.get("batch_input_shape") or [None]
    return [axis for axis, dim in enumerate(dims) if dim is None]
