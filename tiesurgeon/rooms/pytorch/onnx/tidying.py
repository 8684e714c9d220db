"""What the exporter leaves in an ONNX model that a person would not: mended in place.

Runs beside `export_script.py`, in a process of its own, and imports nothing of the package.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import onnx_ir as ir
from onnxscript import optimizer

_RECURRENT = {"LSTM", "GRU", "RNN"}
_ROLES = {1: "weight_ih", 2: "weight_hh", 3: "bias"}
_ANY_SIZE = 1 << 40


def tidy(model: ir.Model, owners: Mapping[str, str]) -> None:
    """Puts recurrent weights together, and names every matrix as its owner does.

    `owners` says which of a tied parameter's names is the one that owns it.
    """
    if any(node.op_type in _RECURRENT for node in model.graph):
        _fold(model)
    for name, value in list(model.graph.initializers.items()):
        if name in owners and owners[name] not in model.graph.initializers:
            _rename(model, value, owners[name])
    for name, value in _recurrent_weights(model.graph):
        if name not in model.graph.initializers:
            _rename(model, value, name)
    _drop_notes(model)


def _drop_notes(model: ir.Model) -> None:
    """Takes out what the exporter noted of its own work, with paths of this machine in it."""
    graph = model.graph
    noted = [graph.metadata_props]
    noted += [value.metadata_props for value in (*graph.inputs, *graph.initializers.values())]
    for node in graph.all_nodes():
        noted += [node.metadata_props, *(value.metadata_props for value in node.outputs)]
    for notes in noted:
        for key in [key for key in notes if key.startswith("pkg.")]:
            del notes[key]


def _fold(model: ir.Model) -> None:
    """Computes now what only constants go into: of an exported LSTM, its gates in ONNX's order.

    Transposes stay, or a matrix that is used both ways round would be written twice.
    """

    def should_fold(node: ir.Node) -> bool | None:
        return False if node.op_type == "Transpose" else None

    optimizer.fold_constants(
        model,
        input_size_limit=_ANY_SIZE,
        output_size_limit=_ANY_SIZE,
        should_fold=should_fold,
    )
    optimizer.remove_unused_nodes(model)


def _recurrent_weights(graph: ir.Graph) -> Iterator[tuple[str, ir.Value]]:
    """Weights of recurrent nodes that bear no name of a module, with one: `lstm.weight_ih_l0`."""
    layers: dict[str, int] = {}
    for node in graph:
        if node.op_type not in _RECURRENT:
            continue
        scope = _scope(node)
        layer = layers.setdefault(scope, 0)
        layers[scope] += 1
        for place, role in _ROLES.items():
            value = node.inputs[place] if place < len(node.inputs) else None
            if value is not None and value.is_initializer() and str(value.name).startswith("val_"):
                yield f"{scope}.{role}_l{layer}".lstrip("."), value


def _scope(node: ir.Node) -> str:
    """The module that a node came from; the exporter notes `['', 'encoder.lstm', 'lstm']`."""
    noted: Any = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
    parts = [part.strip(" '\"") for part in noted.strip("[]").split(",")]
    return parts[-2] if len(parts) > 1 else ""


def _rename(model: ir.Model, value: ir.Value, name: str) -> None:
    del model.graph.initializers[str(value.name)]
    value.name = name
    model.graph.initializers[name] = value
