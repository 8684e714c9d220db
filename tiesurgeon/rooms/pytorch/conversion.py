"""From one PyTorch format to another: the same tensors under the same names, the same ties."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph, Layer, Storage, Variable, View, map_views
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.pytorch.assignments import assignment, product
from tiesurgeon.rooms.pytorch.check import check_written, tensors
from tiesurgeon.rooms.pytorch.model import TorchModel
from tiesurgeon.rooms.pytorch.run import judge_weights, ties


def to_safetensors(
    model: TorchModel, path: Path, provenance: Mapping[str, Any], *, full: bool
) -> Result:
    """Writes the weights and buffers as one `.safetensors` file."""
    from tiesurgeon.rooms.pytorch.safetensors import write_safetensors

    graph = _weights(model)
    _refuse_transposed(model, graph)
    write_safetensors(path, graph, _with_code(provenance, graph))
    return _proved(graph, path, "safetensors", full=full)


def to_state_dict(
    model: TorchModel, path: Path, provenance: Mapping[str, Any], *, full: bool
) -> Result:
    """Writes the weights and buffers as a `.pt` file that holds nothing else."""
    from tiesurgeon.rooms.pytorch.state_dicts import write_state_dict

    graph = _weights(model)
    write_state_dict(path, graph, _with_code(provenance, graph))
    return _proved(graph, path, "torch-state-dict", full=full)


def to_export(
    model: TorchModel, path: Path, provenance: Mapping[str, Any], *, full: bool
) -> Result:
    """Lets PyTorch trace the model and writes the program, each tied parameter once."""
    from tiesurgeon.rooms.pytorch.export import export

    if model.format == "torch-export":
        raise UnsupportedFormat(f"{model.path}: is an exported program already")
    return export(model.found, model.path, path, model.permissions, provenance, full=full)


def _refuse_transposed(model: TorchModel, graph: Graph) -> None:
    for source, target, perm in ties(graph, by_storage=True):
        if perm is not None:
            raise UnsupportedFormat(
                f"{model.path}: {target} is {source} transposed, which a safetensors file cannot "
                "say; --to state-dict or --to pt2 can, or untie it first"
            )


def _proved(graph: Graph, path: Path, format: str, *, full: bool) -> Result:
    check_written(graph, path, format)
    result = judge_weights(graph, path) if full else Result(Proof(reread=True))
    lines = (f"your class  {line}" for line in _code(graph))
    return replace(result, lines=(*lines, *result.lines))


def _with_code(provenance: Mapping[str, Any], graph: Graph) -> Mapping[str, Any]:
    code = _code(graph)
    return {**provenance, "code": code} if code else provenance


def _code(graph: Graph) -> list[str]:
    """What the class must say, since weights alone can only be stored once, not be one."""
    held = tensors(graph)
    lines = []
    for source, target, perm in ties(graph, by_storage=True):
        if perm is None:
            lines.append(assignment(source, target))
        else:
            has_bias = f"{target.rpartition('.')[0]}.bias" in held
            lines.append(product(source, target, bias=has_bias))
    return lines


def _weights(model: TorchModel) -> Graph:
    """The graph without what only trains it, and without aliases that are no ties.

    UnsupportedFormat if nothing is left.
    """
    layers = tuple(kept for layer in model.graph.layers if (kept := _trained(layer)).views)
    if not layers:
        raise UnsupportedFormat(f"{model.path}: holds no weights")
    graph = replace(model.graph, layers=layers, calls=(), inputs=(), outputs=())
    return graph if graph.is_bare else _apart(graph)


def _apart(graph: Graph) -> Graph:
    """Each variable on a storage of its own: weights alone say what is tied by what is shared."""
    owners: dict[Storage, Variable] = {}
    moved: dict[Variable, Variable] = {}

    def change(view: View) -> View:
        held = view.variable
        if owners.setdefault(held.storage, held) is held:
            return view
        if held not in moved:
            moved[held] = replace(held, storage=replace(held.storage))
        return replace(view, variable=moved[held])

    return map_views(graph, change)


def _trained(layer: Layer) -> Layer:
    views = tuple(view for view in layer.views if view.variable.kind in ("weight", "buffer"))
    return replace(layer, views=views)
