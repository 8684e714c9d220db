"""The graph as uses of layers: nested models opened, wrappers seen through, masks left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.graph import Call, Graph, Layer, Value, values_in
from tiesurgeon.names import TRANSPARENT
from tiesurgeon.orientation import is_dotted

# A config may nest models that call each other twice, thirty deep.
_MOST_NODES = 200_000


@dataclass(frozen=True, eq=False)
class Node:
    """One use of a layer that nests nothing; `path` is that of the layer, as in `walk()`.

    `main` are the nodes whose results are its first input, `side` those that come in
    otherwise: initial states, the keys and values of an attention.
    """

    index: int
    path: str
    layer: Layer
    call: Call
    main: tuple[int, ...]
    side: tuple[int, ...]

    @property
    def before(self) -> tuple[int, ...]:
        """All nodes it takes something from."""
        return self.main + self.side


@dataclass(eq=False)
class Flow:
    """All uses, in topological order, with what leaves the model."""

    nodes: list[Node] = field(default_factory=list)
    outputs: frozenset[int] = frozenset()
    _after: list[list[int]] = field(default_factory=list)

    def after(self, index: int) -> Sequence[int]:
        """Nodes that take something from the node."""
        return self._after[index]

    def upstream(self, index: int) -> frozenset[int]:
        """All nodes that the node depends on."""
        return self._reach(index, lambda at: self.nodes[at].before)

    def downstream(self, index: int) -> frozenset[int]:
        """All nodes that depend on the node."""
        return self._reach(index, self.after)

    @staticmethod
    def _reach(start: int, step: Any) -> frozenset[int]:
        seen: set[int] = set()
        pending = list(step(start))
        while pending:
            at = pending.pop()
            if at not in seen:
                seen.add(at)
                pending.extend(step(at))
        return frozenset(seen)

    def distances(self, start: int) -> Mapping[int, tuple[int, int]]:
        """For each node downstream: the fewest side entrances on the way, then steps."""
        best: dict[int, tuple[int, int]] = {start: (0, 0)}
        for node in self.nodes[start + 1 :]:
            ways = [_plus(best[at], 0) for at in node.main if at in best]
            ways += [_plus(best[at], 1) for at in node.side if at in best]
            if ways:
                best[node.index] = min(ways)
        return best

    def add(self, path: str, layer: Layer, call: Call, main: Any, side: Any) -> int:
        """Appends a node after those it depends on."""
        index = len(self.nodes)
        if index >= _MOST_NODES:
            raise UnreadableFile(
                f"the model's nested calls unfold to over {_MOST_NODES:,} layer calls; "
                "not a model that was ever run"
            )
        self.nodes.append(Node(index, path, layer, call, tuple(main), tuple(side)))
        self._after.append([])
        for at in {*main, *side}:
            self._after[at].append(index)
        return index


def _plus(way: tuple[int, int], side: int) -> tuple[int, int]:
    return way[0] + side, way[1] + 1


Ends = tuple[int, ...]  # the nodes a value comes from; several where that is not known
Bound = dict[Value, Ends]


def unfold(graph: Graph) -> Flow:
    """All uses of layers in the graph; none where the file holds bare weights."""
    flow = Flow()
    flow.outputs = frozenset(at for ends in _expand(flow, graph, "", {}) for at in ends)
    return flow


def _expand(flow: Flow, graph: Graph, prefix: str, bound: Bound) -> list[Ends]:
    """Adds the calls of one level; `bound` says where its inputs come from, if known."""
    calls, outputs = graph.calls, list(values_in(graph.outputs))
    if not calls and graph.op == "Sequential" and not any(map(is_dotted, graph.layers)):
        calls, outputs = _chained(graph, bound)
    used = _outputs_used(calls, outputs)
    for call in calls:
        if Value(call.id) in bound:
            continue  # an input that is fed from outside
        layer = graph.by_name[call.layer]
        fed = [bound[value] for value in _content(call) if value in bound]
        results = _use(flow, layer, f"{prefix}{layer.name}", call, fed)
        for index in range(max(len(results), used.get(call.id, 1))):
            bound[Value(call.id, index)] = results[index] if index < len(results) else results[0]
    return [bound[value] for value in outputs if value in bound]


_UNSEEN_INPUT = Value(" input")


def _chained(graph: Graph, bound: Bound) -> tuple[tuple[Call, ...], list[Value]]:
    """Calls of a Sequential whose input was never seen: one layer after the other."""
    last = _UNSEEN_INPUT
    calls: list[Call] = []
    for layer in graph.layers:
        calls.append(Call(layer.name, layer.name, (last,) if last in bound or calls else ()))
        last = Value(layer.name)
    return tuple(calls), [last]


def _use(flow: Flow, layer: Layer, path: str, call: Call, fed: list[Ends]) -> list[Ends]:
    while layer.op in TRANSPARENT and len(layer.inner) == 1:
        layer = layer.inner[0]
        path = f"{path}/{layer.name}"
    every = tuple(dict.fromkeys(at for ends in fed for at in ends))
    if layer.body is None:
        sided = layer.op in _SIDED and len(fed) > 1
        main = fed[0] if sided else every
        side = tuple(at for at in every if at not in main)
        return [(flow.add(path, layer, call, main, side),)]
    starts = list(values_in(layer.body.inputs)) or [_UNSEEN_INPUT]
    if len(starts) == len(fed):
        bound = dict(zip(starts, fed, strict=True))
    else:  # inputs by name, some of them optional: each may come from any
        bound = dict.fromkeys(starts, every) if every else {}
    results = _expand(flow, layer.body, f"{path}/", bound) or [every]
    return _either(results) if layer.op == "If" else results


def _either(results: list[Ends]) -> list[Ends]:
    """The outputs of an ONNX If: those of one branch or, in the same order, the other's."""
    half = len(results) // 2
    return [one + other for one, other in zip(results[:half], results[half:], strict=True)]


def _outputs_used(calls: Sequence[Call], outputs: Sequence[Value]) -> Mapping[str, int]:
    used: dict[str, int] = {}
    for value in (*outputs, *(value for call in calls for value in call.inputs)):
        used[value.call] = max(used.get(value.call, 1), value.index + 1)
    return used


# Only the first tensor these take is the stream; the others are states, keys and values.
_SIDED = frozenset(
    "LSTM GRU SimpleRNN RNN Bidirectional ConvLSTM1D ConvLSTM2D ConvLSTM3D "
    "MultiHeadAttention GroupQueryAttention Attention AdditiveAttention "
    "MultiheadAttention ScaledDotProductAttention".split()
)


def _content(call: Call) -> Iterator[Value]:
    """The values a call takes, without masks, which carry no content."""
    yield from values_in(call.args)
    for name, argument in call.kwargs.items():
        if "mask" not in name:
            yield from values_in(argument)
