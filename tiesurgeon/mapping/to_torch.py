"""A Keras graph turned into a PyTorch graph, without either framework.

Every weight stays one object: two layers tied in Keras get views of one `Variable` here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tiesurgeon.errors import UnmappedLayer
from tiesurgeon.graph import Call, Graph, Layer, Value, map_values, values_in
from tiesurgeon.mapping import layers as table
from tiesurgeon.mapping import masks
from tiesurgeon.mapping.building import Body, Fact
from tiesurgeon.mapping.names import Names, class_name, identifier
from tiesurgeon.mapping.parameters import Parameters, choose
from tiesurgeon.mapping.registry import find
from tiesurgeon.mapping.site import Site

assert table  # importing the package fills the table


def to_torch(graph: Graph) -> Graph:
    """The PyTorch graph that computes what the Keras graph does.

    Raises UnmappedLayer for a layer or an option without a counterpart.
    """
    if not graph.calls:
        raise UnmappedLayer(
            f"{graph.name}: the file holds weights but no graph of layers, so there is no "
            f"forward() to write; give the whole model"
        )
    explicit = masks.explicit(graph)
    first = Conversion()
    first.model(explicit)
    _check_all_used(explicit, first.parameters)
    return Conversion(Parameters(choose(first.parameters.wanted))).model(explicit)


@dataclass
class Conversion:
    """One pass over a model: its parameters and the names of its classes."""

    parameters: Parameters = field(default_factory=Parameters)
    classes: Names = field(default_factory=Names)

    def model(self, graph: Graph) -> Graph:
        """The outermost graph; `config["notes"]` says where it differs from the Keras model."""
        made = self.graph(graph, "", None)[0]
        notes = [
            f"Computes in float32 throughout, where the Keras model used {policy}."
            for policy in sorted({_policy(layer) for _, layer in graph.walk()})
            if policy.startswith("mixed_")
        ]
        return replace(made, config={**made.config, "notes": notes})

    def graph(
        self, graph: Graph, path: str, inputs: Sequence[Fact] | None
    ) -> tuple[Graph, tuple[Fact, ...]]:
        """A graph, given what is known of its inputs, and what is known of its outputs."""
        model_class = self.classes.new(class_name(graph.name))
        body = Body(path)
        names = {layer.name: body.names.new(identifier(layer.name)) for layer in graph.layers}
        values = self._inputs(graph, body, names, inputs)
        placeholders = tuple(values[value] for value in values_in(graph.inputs))
        hints = _hints(graph, names)
        for call in graph.calls:
            if Value(call.id) not in values:
                self._call(graph, call, body, names, hints[call.id], values)
        outputs = map_values(graph.outputs, lambda v: body.plain(values[v], hints[v.call]))
        if isinstance(outputs, (list, tuple)) and len(outputs) == 1:
            outputs = outputs[0]  # as Keras does, however the model was built
        facts = tuple(body.facts[value] for value in values_in(outputs))
        described = [
            {"name": names[graph.call_by_id[old.call].layer], "shape": f.shape, "dtype": f.dtype}
            for old, f in zip(values_in(graph.outputs), facts, strict=True)
        ]
        config = {"class": model_class, "outputs": described}
        return body.graph(graph.name, placeholders, outputs, config), facts

    def _inputs(
        self, graph: Graph, body: Body, names: Mapping[str, str], facts: Sequence[Fact] | None
    ) -> dict[Value, Value]:
        values: dict[Value, Value] = {}
        for index, value in enumerate(values_in(graph.inputs)):
            layer = graph.layer(graph.call_by_id[value.call].layer)
            fact = _input_fact(layer) if facts is None else facts[index]
            name = names[layer.name]
            config = {"shape": fact.shape, "dtype": fact.dtype}
            body.layers[name] = Layer(name, "placeholder", config)
            values[value] = body.call(name, hint=name, fact=fact)
        return values

    def _call(
        self,
        graph: Graph,
        call: Call,
        body: Body,
        names: Mapping[str, str],
        hint: str,
        values: dict[Value, Value],
    ) -> None:
        layer = graph.layer(call.layer)
        if layer.op == "InputLayer":
            raise UnmappedLayer(f"input '{layer.name}' is not among the inputs of {graph.name}")
        site = Site(self, body, layer, find(layer), names[layer.name], hint)
        args = map_values(call.args, values.__getitem__)
        kwargs = {
            key: map_values(value, values.__getitem__)
            for key, value in call.kwargs.items()
            if key != "training" and value is not None
        }
        results = site.run(*args, **kwargs)
        for index, result in enumerate((results,) if isinstance(results, Value) else results):
            values[Value(call.id, index)] = result


def _check_all_used(graph: Graph, parameters: Parameters) -> None:
    """Every weight must have found its way: one that nobody asked for means an option or a
    wrapper that the table does not know."""
    for path, layer in graph.walk():
        for view in layer.views:
            is_weight = view.variable.kind in ("weight", "buffer")
            if is_weight and view.variable not in parameters.wanted:
                raise UnmappedLayer(
                    f"layer '{path}' ({layer.op}): its weight {view.role} has no place in the "
                    f"PyTorch layer; to add it, extend the block of {layer.op} in "
                    f"tiesurgeon/mapping/layers"
                )


def _policy(layer: Layer) -> str:
    policy = layer.config.get("dtype")
    if isinstance(policy, Mapping):
        policy = (policy.get("config") or {}).get("name")
    return policy if isinstance(policy, str) else ""


def _input_fact(layer: Layer) -> Fact:
    shape = layer.config.get("batch_shape") or layer.config.get("batch_input_shape")
    if shape is None:
        raise UnmappedLayer(f"input '{layer.name}' has no known shape; give one and save again")
    dtype = layer.config.get("dtype")
    return Fact(tuple(shape), dtype if isinstance(dtype, str) else "float32")


def _hints(graph: Graph, names: Mapping[str, str]) -> dict[str, str]:
    """A name for the output of every call: its layer's, and for a layer called several times
    also the input's that it follows from, where that is only one."""
    roots: dict[str, frozenset[str]] = {}
    hints: dict[str, str] = {}
    for call in graph.calls:
        of_inputs = [roots[value.call] for value in call.inputs if value.call in roots]
        name = names[call.layer]
        roots[call.id] = frozenset().union(*of_inputs) if of_inputs else frozenset((name,))
        shared = len(graph.calls_of(call.layer)) > 1
        one_root = len(roots[call.id]) == 1
        prefix = f"{next(iter(roots[call.id]))}_" if shared and one_root else ""
        hints[call.id] = prefix + name
    return hints
