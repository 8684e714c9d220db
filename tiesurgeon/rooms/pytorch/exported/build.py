"""The program as a graph: modules and functions as layers, their uses as calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tiesurgeon.edits import compose
from tiesurgeon.graph import Call, Graph, Layer, Storage, Value, Variable, View
from tiesurgeon.rooms.pytorch.exported.holdings import Holding, Holdings
from tiesurgeon.rooms.pytorch.exported.operators import plain_arguments, word_of
from tiesurgeon.rooms.pytorch.exported.payloads import dtype_name
from tiesurgeon.rooms.pytorch.exported.program import Input, Program, names_in
from tiesurgeon.rooms.pytorch.exported.scopes import classes

Stored = Mapping[str, tuple[Storage, tuple[int, ...] | None, bool]]


class Builder:
    """Makes the graph of a program, once.

    `stored` gives every tensor's storage, how it is turned there, and whether it is trained.
    """

    def __init__(self, program: Program, holdings: Holdings, stored: Stored) -> None:
        self._program, self._holdings = program, holdings
        self._classes = classes(program.nodes)
        self._perms = {name: perm for name, (_, perm, _) in stored.items()}
        kinds = {found.name: found.role for found in holdings.tensors.values()}
        self._variables = {
            name: Variable(name, storage, True, "weight")
            if is_trained and kinds[name] == "parameter"
            else Variable(
                name, storage, False, "weight" if kinds[name] == "parameter" else "buffer"
            )
            for name, (storage, _, is_trained) in stored.items()
            if name in kinds
        }
        self._readers: dict[str, set[int]] = {}  # numbers of the nodes that use a value
        for number, node in enumerate(program.nodes):
            for value in names_in(node["inputs"]):
                self._readers.setdefault(value, set()).add(number)
        self._values: dict[str, Value] = {}
        self._calls: list[Call] = []
        self._count: dict[str, int] = {}
        self._nodes: dict[str, list[int]] = {}  # of each layer

    def graph(self, name: str) -> Graph:
        """The whole of it."""
        inputs = self._inputs()
        for segment in self._holdings.segments:
            self._call(segment.nodes)
        outputs = [
            self._values[name] for name in self._program.user_outputs if name in self._values
        ]
        return Graph(
            name,
            self._classes.get("", ""),
            (*inputs, *self._layers()),
            tuple(self._calls),
            tuple(Value(layer.name) for layer in inputs),
            tuple(outputs),
        )

    def _inputs(self) -> list[Layer]:
        layers = []
        for found in self._program.inputs:
            if found.role != "user_input" or found.value not in self._program.metas:
                continue
            layers.append(self._input(found))
            self._calls.append(Call(found.value, found.value))
            self._values[found.value] = Value(found.value)
        return layers

    def _input(self, found: Input) -> Layer:
        sizes = self._program.shape(found.value)
        shape = tuple(size if isinstance(size, int) else None for size in sizes)
        dtype = dtype_name(self._program.metas[found.value])
        config = {"shape": shape, "dtype": dtype}
        return Layer(found.value, "InputLayer", config, separator=".")

    def _call(self, nodes: tuple[int, ...]) -> None:
        layer = self._holdings.layers[nodes[0]]
        self._nodes.setdefault(layer, []).extend(nodes)
        taken: dict[str, None] = {}
        made: list[str] = []
        for number in nodes:
            node = self._program.nodes[number]
            taken.update(dict.fromkeys(names_in(node["inputs"])))
            made += names_in(node["outputs"])
        self._count[layer] = self._count.get(layer, 0) + 1
        count = self._count[layer]
        id_ = layer if count == 1 else f"{layer}#{count}"
        given = tuple(self._values[name] for name in taken if name in self._values)
        self._calls.append(Call(id_, layer, given))
        leaving = (name for name in made if self._leaves(name, nodes))
        for index, name in enumerate(leaving):
            self._values[name] = Value(id_, index)

    def _leaves(self, value: str, nodes: tuple[int, ...]) -> bool:
        """True if something beside the nodes uses the value."""
        is_output = value in self._program.user_outputs
        return is_output or not self._readers.get(value, set()) <= set(nodes)

    # --- layers -------------------------------------------------------------------------------

    def _layers(self) -> list[Layer]:
        """Modules in the order in which they were registered, then functions in order of use."""
        held: dict[str, list[Holding]] = {}
        for holding in self._holdings.by_name.values():
            held.setdefault(holding.layer, []).append(holding)
        registered = [str(e.get("fqn")) for e in self._program.module.get("module_call_graph", ())]
        names = [name for name in registered if name in held or name in self._nodes]
        return [
            self._layer(name, held.get(name, []))
            for name in dict.fromkeys((*names, *held, *self._nodes))
        ]

    def _layer(self, name: str, held: list[Holding]) -> Layer:
        nodes = self._nodes.get(name, [])
        views = tuple(self._view(holding) for holding in held if holding.tensor in self._variables)
        op = self._classes.get(name, "")
        if not op and nodes:
            op = self._function(nodes[0], views)
        return Layer(name, op, self._config(op, nodes, views), views, separator=".")

    def _function(self, number: int, views: tuple[View, ...]) -> str:
        word = word_of(self._program.nodes[number])
        return "Linear" if word == "MatMul" and views else word

    def _view(self, holding: Holding) -> View:
        perm = compose(self._perms[holding.tensor], holding.perm)
        return View(holding.role, self._variables[holding.tensor], perm)

    def _config(self, op: str, nodes: list[int], views: tuple[View, ...]) -> dict[str, Any]:
        """The module's attributes as far as its operators tell."""
        weight = next((view for view in views if view.role == "weight"), None)
        words = {word_of(self._program.nodes[number]) for number in nodes}
        config: dict[str, Any] = {}
        for number in nodes:
            node = self._program.nodes[number]
            if len(nodes) == 1 or any(
                name in self._holdings.tensors for name in names_in(node["inputs"])
            ):
                config.update(plain_arguments(node))
        if weight is not None and len(weight.shape) == 2:
            rows, columns = weight.shape
            if words & {"Embedding", "EmbeddingBag"}:
                config |= {"num_embeddings": rows, "embedding_dim": columns}
                if config.get("padding_idx", -1) < 0:
                    config["padding_idx"] = None
            elif "Linear" in words or op == "Linear":
                config |= {"in_features": columns, "out_features": rows}
        return config
