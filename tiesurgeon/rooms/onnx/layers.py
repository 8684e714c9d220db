"""Nodes of an ONNX model -> layers and calls of the graph, subgraphs and functions included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Call, Graph, Layer, Value, View
from tiesurgeon.rooms.onnx.order import called, ordered, subgraphs
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage
from tiesurgeon.rooms.onnx.roles import is_known, role
from tiesurgeon.rooms.onnx.stored import Stored
from tiesurgeon.rooms.onnx.tensors import DTYPES
from tiesurgeon.rooms.onnx.values import Body, Held, Scope

_MOST_NODES = 30_000  # of functions and subgraphs, a function counted at each of its calls
_DEEPEST = 50
_SIMPLE = {1: "f", 2: "i", 3: "s", 6: "floats", 7: "ints", 8: "strings"}  # AttributeProto.type


@dataclass(frozen=True, eq=False)
class Use:
    """One place where a node takes a held tensor: input `index` of `node`."""

    path: str
    node: Any
    index: int
    scope: Scope
    held: Held


@dataclass(eq=False)
class Builder:
    """Builds the graph of a model, and remembers each use of what it holds by full name."""

    model: Any
    stored: Stored
    uses: dict[str, Use] = field(default_factory=dict)
    unknown: list[Any] = field(default_factory=list)
    _nodes: int = 0

    def __post_init__(self) -> None:
        self.opsets = {o.domain or "ai.onnx": o.version for o in self.model.opset_import}
        self._functions = {(f.domain, f.name): f for f in self.model.functions}

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return int(self.opsets.get("ai.onnx", 1))

    def graph(self) -> Graph:
        """The whole model."""
        proto = self.model.graph
        scope = Scope(Body(), proto)
        inputs = self._open(scope)
        self._add_nodes(scope, proto.node, "", 0)
        outputs = tuple(self._result(scope, value.name, "") for value in proto.output)
        body = scope.body
        return Graph(
            proto.name, "onnx", tuple(body.layers), tuple(body.calls), tuple(inputs), outputs
        )

    def _open(self, scope: Scope) -> list[Value]:
        """Names the initializers and inputs of a graph; those that are both are initializers."""
        scope.names.update(self.stored.initializers(scope.graph))
        inputs = []
        for value in scope.graph.input:
            if value.name not in scope.names:
                given = scope.body.add_input(scope.prefix + value.name, **_described(value))
                scope.names[value.name] = given
                inputs.append(given)
        return inputs

    def _add_nodes(self, scope: Scope, nodes: Any, above: str, depth: int) -> None:
        self._nodes += len(nodes) if depth else 0
        if self._nodes > _MOST_NODES or depth > _DEEPEST:
            raise UnreadableFile("its functions and subgraphs unfold to more than any model has")
        scope.look_ahead(nodes)
        for node in ordered(nodes, scope.knows):
            held = self.stored.held(scope, node)
            if held is not None:
                scope.names[node.output[0]] = held
            else:
                self._add_node(scope, node, above, depth)

    def _add_node(self, scope: Scope, node: Any, above: str, depth: int) -> None:
        name = scope.body.fresh(scope.prefix + called(node))
        path = above + name
        function = self._functions.get((node.domain, node.op_type))
        if function is None and not is_known(node):
            self.unknown.append(node)
        views: list[View] = []
        args: list[Value] = []
        config = _config(node)
        opset = self.opsets.get(node.domain or "ai.onnx", self.opset)
        for index, taken in enumerate(node.input):
            found = scope.find(taken) if taken else None
            if isinstance(found, Value):
                args.append(found)
            elif found is None or function is not None:
                continue
            elif found.is_setting:
                config[role(node, index, opset)] = found.setting
            else:
                found = self.stored.as_seen(scope, node, index, found)
                view = _view(role(node, index, opset), found, views)
                views.append(view)
                self.uses[f"{path}/{view.role}"] = Use(path, node, index, scope, found)
        body, captured = self._body(scope, node, function, f"{path}/", depth)
        layer = Layer(
            name,
            node.op_type,
            config,
            tuple(views),
            body=body,
            entry={"domain": node.domain},
        )
        scope.body.layers.append(layer)
        fed = args if body is None else captured
        scope.body.calls.append(Call(name, name, tuple(fed)))
        for index, made in enumerate(node.output):
            if made:
                scope.names[made] = Value(name, index)

    # --- levels below -------------------------------------------------------------------------

    def _body(
        self, scope: Scope, node: Any, function: Any, path: str, depth: int
    ) -> tuple[Graph | None, list[Value]]:
        """The graphs that a node runs, as one, and the values it takes, one for each input."""
        inner = list(subgraphs(node))
        if function is None and not inner:
            return None, []
        body = Body()
        outputs: list[Value] = []
        if function is not None:
            given = dict(zip_longest(function.input, node.input, fillvalue=""))
            below = Scope(body, None, scope, formal=given)
            self._add_nodes(below, function.node, path, depth + 1)
            outputs = [self._result(below, name, path) for name in function.output]
        for name, proto in inner:
            prefix = f"{name}/" if len(inner) > 1 else ""
            below = Scope(body, proto, scope, prefix)
            self._feed(below, node, self._open(below), scope)
            self._add_nodes(below, proto.node, path, depth + 1)
            outputs += [self._result(below, value.name, path) for value in proto.output]
        outputs = _as_returned(node, outputs, [len(proto.output) for _, proto in inner])
        graph = Graph(
            node.op_type,
            node.op_type,
            tuple(body.layers),
            tuple(body.calls),
            tuple(body.taken),
            tuple(outputs),
        )
        return graph, list(body.taken.values())

    @staticmethod
    def _feed(below: Scope, node: Any, inputs: list[Value], scope: Scope) -> None:
        """A Loop's and Scan's inputs are those of their bodies, in order."""
        for given, taken in zip(inputs, node.input, strict=False):
            found = scope.find(taken) if taken else None
            if isinstance(found, Value):
                below.body.taken[given] = found

    def _result(self, scope: Scope, name: str, above: str) -> Value:
        found = scope.find(name)
        if found is None:
            raise UnreadableFile(f"its output {name!r} is made by no node")
        if isinstance(found, Value):
            return found
        layer = scope.body.fresh(f"{scope.prefix}{name}")  # the model returns a weight
        views = () if found.is_setting else (View("input", found.variable, found.perm),)
        scope.body.layers.append(Layer(layer, "Identity", views=views))
        scope.body.calls.append(Call(layer, layer))
        return Value(layer)

    def quantised(self) -> Iterator[tuple[str, QuantisedStorage]]:
        """Uses of quantised matrices, by full name."""
        for name, use in self.uses.items():
            if isinstance(use.held.variable.storage, QuantisedStorage):
                yield name, use.held.variable.storage


def _as_returned(node: Any, outputs: list[Value], counts: list[int]) -> list[Value]:
    """A Loop's first body output is its condition, which it does not return."""
    if node.op_type == "If" and (len(counts) != 2 or counts[0] != counts[1]):
        raise UnreadableFile(f"the branches of node {called(node)!r} return {counts} values")
    return outputs[1:] if node.op_type == "Loop" else outputs


def _view(name: str, held: Held, before: list[View]) -> View:
    roles = {view.role for view in before}
    number, unique = 1, name
    while unique in roles:  # the inputs of a variadic operator have one name
        unique = f"{name}_{number}"
        number += 1
    return View(unique, held.variable, held.perm)


def _config(node: Any) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for attribute in node.attribute:
        kind = _SIMPLE.get(attribute.type)
        if kind is None:
            continue
        value = getattr(attribute, kind)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif kind in ("floats", "ints"):
            value = list(value)
        elif kind == "strings":
            value = [item.decode("utf-8", "replace") for item in value]
        config[attribute.name] = value
    return config


def _described(value: Any) -> dict[str, Any]:
    """Shape (a number, a name or None for each axis) and dtype of an input."""
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return {}
    dtype = DTYPES.get(tensor.elem_type)
    config: dict[str, Any] = {"dtype": dtype.name if dtype is not None else "string"}
    if tensor.HasField("shape"):
        config["shape"] = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
            for dim in tensor.shape.dim
        ]
    return config
