"""What a name stands for in one graph of a model: a weight that is held, or a computed value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tiesurgeon.edits import Perm
from tiesurgeon.graph import Call, Layer, Value, Variable
from tiesurgeon.rooms.onnx.order import captured, subgraphs

_LONGEST_SETTING = 64


@dataclass(frozen=True, eq=False)
class Held:
    """A tensor that is stored in the model, seen through nodes that compute nothing from data.

    `owner` is the graph that lists it as an initializer, or the Constant node that makes it.
    `chain` are the nodes between it and this name (Identity, Transpose, DequantizeLinear),
    `perm` is what they do to it.
    """

    variable: Variable
    tensor: Any
    owner: Any
    perm: Perm | None = None
    chain: tuple[Any, ...] = ()

    @property
    def is_setting(self) -> bool:
        """True for what tells a node what to do (axes, a shape, an epsilon) and is no weight."""
        storage, rank = self.variable.storage, len(self.variable.shape)
        if storage.dtype.kind == "O" or rank == 0:
            return True
        if self.variable.trainable:
            return rank == 1 and storage.size <= 1 and self.is_constant
        return rank < 2 and storage.dtype.itemsize > 1 and storage.size <= _LONGEST_SETTING

    @property
    def is_constant(self) -> bool:
        """True for what a Constant node makes."""
        return hasattr(self.owner, "op_type")

    @property
    def name(self) -> str:
        """What the file calls it: the tensor in a Constant has no name of its own."""
        return str(self.owner.output[0] if self.is_constant else self.tensor.name)

    @property
    def setting(self) -> Any:
        """It, for a layer's config."""
        if self.variable.storage.dtype.kind == "O":
            return [text.decode("utf-8", "replace") for text in self.tensor.string_data]
        return self.variable.storage.load().tolist()


@dataclass(eq=False)
class Body:
    """One level of the graph that is being built; the branches of an If share one."""

    layers: list[Layer] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    taken: dict[Value, Value] = field(default_factory=dict)  # here -> in the level around it
    _captured: dict[Value, Value] = field(default_factory=dict)  # the other way, no formal inputs

    def fresh(self, wish: str) -> str:
        """`wish`, or `wish_1`, `wish_2`, ... if that name is taken."""
        name, number = wish, 0
        while name in self.names:
            number += 1
            name = f"{wish}_{number}"
        self.names.add(name)
        return name

    def add_input(self, name: str, **config: Any) -> Value:
        """A layer that stands for what comes in, and its value."""
        name = self.fresh(name)
        self.layers.append(Layer(name, "InputLayer", config))
        self.calls.append(Call(name, name))
        return Value(name)

    def capture(self, value: Value, name: str) -> Value:
        """A value of the level around this one, as it is known here."""
        if value not in self._captured:
            here = self.add_input(name)
            self.taken[here] = value
            self._captured[value] = here
        return self._captured[value]


@dataclass(eq=False)
class Scope:
    """The names of one graph or function, and the scope that encloses it.

    `graph` is the GraphProto, or None in a function, which shares its nodes among its calls.
    """

    body: Body
    graph: Any
    outer: Scope | None = None
    prefix: str = ""
    names: dict[str, Held | Value] = field(default_factory=dict)
    formal: dict[str, str] = field(default_factory=dict)  # of a function: its name -> the caller's
    makers: dict[str, Any] = field(default_factory=dict)  # which node makes a name
    takers: dict[str, list[Any]] = field(default_factory=dict)  # which nodes take it

    def find(self, name: str) -> Held | Value | None:
        """What the name stands for here; values of outer levels come in as inputs."""
        found = self.names.get(name)
        if found is not None or self.outer is None:
            return found
        if self.graph is None:
            asked = self.formal.get(name)
            found = self.outer.find(asked) if asked else None
        else:
            found = self.outer.find(name)
        if isinstance(found, Value) and self.outer.body is not self.body:
            found = self.body.capture(found, name)
        if found is not None:
            self.names[name] = found
        return found

    def knows(self, name: str) -> bool:
        """True for what can be found, and for inputs of a function that its caller left out."""
        return name in self.formal or self.find(name) is not None

    def look_ahead(self, nodes: Any) -> None:
        """Notes which nodes make and take which names, those of subgraphs included."""
        for node in nodes:
            self.makers.update(dict.fromkeys(node.output, node))
            for name in node.input:
                self.takers.setdefault(name, []).append(node)
            for _, graph in subgraphs(node):
                for name in captured(graph):
                    self.takers.setdefault(name, []).append(node)
