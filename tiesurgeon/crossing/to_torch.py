"""From Keras to PyTorch: map the graph, write it, compare what both compute."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tiesurgeon import __version__, find
from tiesurgeon.comparison import largest_difference
from tiesurgeon.errors import CannotRun, ProofFailed, UnsupportedFormat
from tiesurgeon.graph import Graph, Layer, View
from tiesurgeon.mapping.to_torch import to_torch
from tiesurgeon.mapping.torch_words import RECURRENT
from tiesurgeon.model import Permissions
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.keras import run as keras_run
from tiesurgeon.rooms.keras.examples import example_inputs
from tiesurgeon.rooms.keras.model import KerasModel
from tiesurgeon.rooms.pytorch.check import tensors
from tiesurgeon.rooms.pytorch.code import run as torch_run
from tiesurgeon.rooms.pytorch.code.check import check_folder, tied_names
from tiesurgeon.rooms.pytorch.code.write import write
from tiesurgeon.rooms.pytorch.export import export_subject
from tiesurgeon.rooms.pytorch.read import read_as
from tiesurgeon.rooms.pytorch.run import Subject
from tiesurgeon.rooms.pytorch.safetensors import read_safetensors

_TOLERANCE = 1e-5


def keras_to_torch(model: KerasModel, folder: Path, *, full: bool) -> Result:
    """Writes `model.py` and `model.safetensors` of a Keras model into a folder, and proves them.

    Raises UnmappedLayer for a layer without a counterpart, ProofFailed where the module
    does not compute what Keras does.
    """
    graph = model.graph
    mapped = to_torch(graph)
    write(mapped, folder, source=model.path.name, version=__version__)
    check_folder(mapped, folder)
    warnings = tuple(_unusual_numbers(graph))
    if not full:
        return Result(Proof(reread=True), warnings)
    result = _compare(model, mapped, folder)
    return replace(result, warnings=(*warnings, *result.warnings))


def keras_to_program(
    model: KerasModel, path: Path, provenance: Mapping[str, Any], *, full: bool
) -> Result:
    """Writes a Keras model as a `.pt2` program: the PyTorch module of it, traced.

    The full proof compares the program with that module, whose ties Python makes. Raises
    UnmappedLayer for a layer without a counterpart, UnsupportedFormat where PyTorch cannot
    trace it (as where a mask is carried into a recurrent layer).
    """
    mapped = to_torch(model.graph)
    _refuse_masked(mapped, model.path)
    with TemporaryDirectory(prefix="tiesurgeon-module-") as place:
        folder, inputs = Path(place, "module"), Path(place, "inputs.npz")
        folder.mkdir()
        write(mapped, folder, source=model.path.name, version=__version__)
        np.savez(inputs, *example_inputs(model.graph).values())
        weights = read_safetensors(folder / "model.safetensors").graph
        graph = _with_further_names(weights, tied_names(mapped))
        permissions = Permissions(trust_code=True, example_inputs=inputs)  # our own code
        subject = Subject(folder, "torch")
        try:
            result = export_subject(subject, graph, path, permissions, provenance, full=full)
        except UnsupportedFormat as error:  # of the folder, which nobody knows
            raise UnsupportedFormat(str(error).replace(str(folder), str(model.path))) from None
    _refuse_untied(path, tied_names(mapped))
    words = called_several_times(model.graph, tied_names(mapped)) if full else ()
    return replace(result, warnings=(*result.warnings, *words))


def called_several_times(graph: Graph, tied: object) -> tuple[str, ...]:
    """Why nothing was poked or trained, where no tied weight has a second name in PyTorch."""
    if tied or not find.ties(graph):
        return ()
    word = "poke and step were not checked: each tie is one layer that is called several times"
    return (word,)


def _refuse_masked(graph: Graph, path: Path) -> None:
    for call in graph.calls:
        if "mask" in call.kwargs and graph.layer(call.layer).op in RECURRENT:
            raise UnsupportedFormat(
                f"{path}: {call.layer} skips masked steps, which torch.export cannot trace; "
                "--to onnx and --to torch keep the mask"
            )
    for layer in graph.layers:
        if layer.body is not None:
            _refuse_masked(layer.body, path)


def _with_further_names(graph: Graph, groups: Sequence[Sequence[str]]) -> Graph:
    """The weights of a file that holds each once, under all names that the module gives them."""
    layers = {layer.name: layer for layer in graph.layers}
    held = tensors(graph)
    for owner, *names in groups:
        for name in names:
            path, _, role = name.rpartition(".")
            layer = layers.get(path, Layer(path, "", separator="."))
            view = View(role, held[owner].variable)
            layers[path] = replace(layer, views=(*layer.views, view))
    return replace(graph, layers=tuple(layers.values()))


def _refuse_untied(path: Path, groups: Sequence[Sequence[str]]) -> None:
    found = tensors(read_as(path, "torch-export").graph)
    for owner, *names in groups:
        for name in names:
            if name in found and found[name].variable is not found[owner].variable:
                raise ProofFailed(f"{path.name}: read again, {name} is not tied to {owner}")


def _compare(model: KerasModel, mapped: Graph, folder: Path) -> Result:
    if not torch_run.is_installed():
        return _unproved("PyTorch is not installed here, so the module was not run")
    inputs = example_inputs(model.graph)
    module = torch_run.run(folder, inputs, tied_names(mapped))
    proof = Proof(reread=True, poke=module.poke, step=module.step)
    for what in ("poke", "step"):
        if getattr(proof, what) is False:
            raise ProofFailed(f"the module's tied parameters fail the {what} check")
    if not keras_run.is_installed():
        word = "Keras is not installed here, so outputs were not compared with the original's"
        return Result(proof, (word,))
    try:
        expected, warnings = model.ran_on(inputs)
    except CannotRun as error:
        return Result(proof, (f"outputs were not compared: {error}",))
    difference = largest_difference(expected, module.outputs)
    scale = max([1.0, *(float(np.max(np.abs(y[np.isfinite(y)]), initial=0.0)) for y in expected)])
    if not difference <= _TOLERANCE * scale:
        raise ProofFailed(
            f"the PyTorch module's outputs differ from Keras' by {difference:.3g}, expected at "
            f"most {_TOLERANCE * scale:.3g}; please report this model's layers"
        )
    return Result(replace(proof, max_abs_diff=difference), warnings)


def _unproved(reason: str) -> Result:
    return Result(Proof(reread=True), (reason,))


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
