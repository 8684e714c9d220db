"""model.py as text: the docstring, the imports, the parts, the classes and load()."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tiesurgeon.graph import Graph, Layer, Value, values_in
from tiesurgeon.mapping.names import Names, class_name
from tiesurgeon.mapping.torch_words import RECURRENT, Name, is_module
from tiesurgeon.rooms.pytorch.code.copying import needed
from tiesurgeon.rooms.pytorch.code.formatting import fit, literal
from tiesurgeon.rooms.pytorch.code.forward import Forward
from tiesurgeon.rooms.pytorch.code.modules import Ownership, Place, ownership


def model_source(graph: Graph, *, source: str, version: str) -> str:
    """The text of model.py for a PyTorch graph that was made from the file named `source`."""
    graph = _named(graph, source)
    owned = ownership(graph)
    classes = [_class(body, path, owned) for body, path in _bodies(graph, ())]
    parts = needed(_parts(graph))
    code = [*(part.text for part in parts), *classes, _load(graph)]
    imports = _imports("\n".join(code), [name for part in parts for name in part.imports])
    return "\n\n\n".join((_heading(graph, source, version) + imports, *code)) + "\n"


def _named(graph: Graph, source: str) -> Graph:
    """A model that Keras named (`functional_3`) goes by the name of its file."""
    if not re.fullmatch(r"(functional|sequential|model)(_\d+)?", graph.name):
        return graph
    taken = frozenset(body.config["class"] for body, path in _bodies(graph, ()) if path)
    name = Names(taken).new(class_name(source.rsplit(".", 1)[0]))
    return replace(graph, config={**graph.config, "class": name})


def _heading(graph: Graph, source: str, version: str) -> str:
    rows = [
        *(
            ("Input: ", graph.call_by_id[value.call].layer, _layer_of(graph, value).config)
            for value in values_in(graph.inputs)
        ),
        *(("Output:", output["name"], output) for output in graph.config["outputs"]),
    ]
    width = max(len(row[1]) for row in rows)
    lines = [
        f"{title} {name:<{width}}  {config['dtype']:<7}  {_shape(config['shape'])}"
        for title, name, config in rows
    ]
    first = f"{graph.config['class']}, converted from {source} by tiesurgeon {version}."
    notes = ("", *graph.config["notes"]) if graph.config.get("notes") else ()
    text = "\n".join((first, "", *(line.rstrip() for line in lines), *notes))
    return f'"""{text}\n"""\n\n'


def _shape(shape: Any) -> str:
    """`(batch, 32, any)`: sizes that may differ from call to call are named."""
    names = ["batch", "steps" if len(shape) in (2, 3) else "any", *["any"] * len(shape)]
    sizes = [name if size is None else str(size) for size, name in zip(shape, names, strict=False)]
    return f"({', '.join(sizes)})"


def _layer_of(graph: Graph, value: Value) -> Layer:
    return graph.layer(graph.call_by_id[value.call].layer)


def _imports(code: str, of_parts: list[str]) -> str:
    wanted = {"from pathlib import Path", "from safetensors.torch import load_model", *of_parts}
    wanted |= {"from torch import nn", "from torch import Tensor"}
    if re.search(r"\btorch\.", code):
        wanted.add("import torch")
    if re.search(r"\bF\.", code):
        wanted.add("import torch.nn.functional as F")
    third_party = {line for line in wanted if line.split()[1].startswith(("torch", "safetensors"))}
    sections = (_section(wanted - third_party), _section(third_party))
    return "\n\n".join(section for section in sections if section)


def _section(imports: set[str]) -> str:
    plain = sorted(line for line in imports if line.startswith("import"))
    names: dict[str, list[str]] = {}
    for line in imports - set(plain):
        _, module, _, name = line.split(maxsplit=3)
        names.setdefault(module, []).append(name)
    from_lines = [
        f"from {module} import {', '.join(sorted(found, key=_import_order))}"
        for module, found in sorted(names.items())
    ]
    return "\n".join((*plain, *from_lines))


def _import_order(name: str) -> tuple[int, str]:
    """Constants, classes, then functions: as ruff's isort has them."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name


def _parts(graph: Graph) -> set[str]:
    """The parts that a graph needs, as ops and as constants of configs."""
    found: set[str] = set()
    for _, layer in graph.walk():
        constants = [layer.op, *(v.text for v in layer.config.values() if isinstance(v, Name))]
        found |= {name.removeprefix("parts.") for name in constants if name.startswith("parts.")}
    for body, _ in _bodies(graph, ()):
        for call in body.calls:
            if "mask" in call.kwargs and body.layer(call.layer).op in RECURRENT:
                found.add("run_masked")
    return found


def _bodies(graph: Graph, path: tuple[str, ...]) -> Iterator[tuple[Graph, tuple[str, ...]]]:
    """Every graph with its path, nested ones before those that use them."""
    for layer in graph.layers:
        if layer.body is not None:
            yield from _bodies(layer.body, (*path, layer.name))
    yield graph, path


def _class(graph: Graph, path: tuple[str, ...], owned: Ownership) -> str:
    parameters = {
        layer.name: _read(Place(path, layer, layer.views[0]), owned)
        for layer in graph.layers
        if layer.op == "nn.Parameter"
    }
    inputs = [graph.call_by_id[value.call].layer for value in values_in(graph.inputs)]
    signature = ", ".join(("self", *(f"{name}: Tensor" for name in inputs)))
    lines = [f"class {graph.config['class']}(nn.Module):"]
    forward = Forward(graph, parameters)
    made = _constructor(graph, path, owned)
    if made:
        lines += ["    def __init__(self) -> None:", "        super().__init__()"]
        lines += [line for statement in made for line in fit(statement, 8)]
        lines.append("")
    lines += fit(f"def forward({signature}) -> {_returns(graph)}:", 4)
    lines += [line for text in forward.statements() for line in fit(text, 8)]
    return "\n".join(lines)


def _returns(graph: Graph) -> str:
    if isinstance(graph.outputs, Value):
        return "Tensor"
    if isinstance(graph.outputs, dict):
        return "dict[str, Tensor]"
    return f"tuple[{', '.join('Tensor' for _ in values_in(graph.outputs))}]"


def _constructor(graph: Graph, path: tuple[str, ...], owned: Ownership) -> list[str]:
    """The statements after super().__init__(): modules, ties, frozen parameters."""
    statements = []
    for layer in graph.layers:
        if layer.body is not None:
            statements.append(f"self.{layer.name} = {layer.body.config['class']}()")
        elif is_module(layer.op):
            statements.append(f"self.{layer.name} = {_constructed(layer)}")
        elif layer.op == "nn.Parameter":
            place = Place(path, layer, layer.views[0])
            if owned.is_attribute(place):
                statements.append(_own_parameter(layer))
    for use, owner in owned.tied_in(path):
        left, right = (_attribute(place, path) for place in (use, owner))
        statements.append(f"{left} = {right}  # tied")
    order = {layer: number for number, layer in enumerate(graph.layers)}
    owned_here = sorted(owned.owned_in(path), key=lambda place: order[place.layer])
    return [*statements, *_frozen(owned_here)]


def _own_parameter(layer: Layer) -> str:
    variable = layer.views[0].variable
    empty = f"torch.empty({', '.join(map(str, variable.shape)) or '()'})"
    if variable.kind == "buffer":
        return f'self.register_buffer("{layer.name}", {empty})'
    return f"self.{layer.name} = nn.Parameter({empty})"


def _constructed(layer: Layer) -> str:
    """`nn.Linear(3, 5, bias=False)`: sizes by position as people write them, options by name."""
    positional = _POSITIONAL.get(layer.op, ())
    texts = [literal(layer.config[name]) for name in positional]
    rest = (item for item in layer.config.items() if item[0] not in positional)
    texts += [f"{name}={literal(value)}" for name, value in rest]
    return f"{layer.op.removeprefix('parts.')}({', '.join(texts)})"


def _frozen(places_here: list[Place]) -> Iterator[str]:
    by_layer: dict[Layer, list[Place]] = {}
    for place in places_here:
        if not place.is_buffer:
            by_layer.setdefault(place.layer, []).append(place)
    second_biases = []
    for layer, places in by_layer.items():
        frozen = [place for place in places if not place.view.variable.trainable]
        if len(frozen) == len(places) and len(places) > 1:
            yield f"self.{layer.name}.requires_grad_(False)"
            continue
        for place in frozen:
            statement = f"{_attribute(place, place.path)}.requires_grad_(False)"
            if place.view.role.startswith("bias_hh"):
                second_biases.append(statement)
            else:
                yield statement
    if second_biases:
        yield "# Keras has one bias where PyTorch has two: bias_hh stays zero."
        yield from second_biases


def _attribute(place: Place, seen_from: tuple[str, ...]) -> str:
    names = (*place.path[len(seen_from) :], place.layer.name, place.view.role)
    return ".".join(("self", *(name for name in names if name)))


def _read(place: Place, owned: Ownership) -> str:
    """A parameter read as a value: `self.encoder.weight.t()`."""
    owner = place if owned.is_attribute(place) else owned.owners[place.view.variable]
    text = _attribute(owner, place.path)
    if place.view.perm is None:
        return text
    axes = ", ".join(map(str, place.view.perm))
    return f"{text}.t()" if place.view.perm == (1, 0) else f"{text}.permute({axes})"


def _load(graph: Graph) -> str:
    name = graph.config["class"]
    path = 'path: str | Path = Path(__file__).with_name("model.safetensors")'
    lines = [
        *fit(f"def load({path}) -> {name}:", 0),
        '    """The model with its trained weights, in eval mode."""',
        f"    model = {name}()",
        "    load_model(model, path)",
        "    return model.eval()",
    ]
    return "\n".join(lines)


_SIZES = ("in_channels", "out_channels", "kernel_size")
_POSITIONAL = {
    "nn.Linear": ("in_features", "out_features"),
    "nn.Embedding": ("num_embeddings", "embedding_dim"),
    **dict.fromkeys(
        ("nn.LSTM", "nn.GRU", "nn.RNN", "parts.StepwiseLSTM", "parts.StepwiseGRU"),
        ("input_size", "hidden_size"),
    ),
    "parts.StepwiseRNN": ("input_size", "hidden_size"),
    **dict.fromkeys(("nn.Conv1d", "nn.Conv2d", "nn.Conv3d"), _SIZES),
    **dict.fromkeys(("nn.ConvTranspose1d", "nn.ConvTranspose2d", "nn.ConvTranspose3d"), _SIZES),
    **dict.fromkeys(("nn.BatchNorm1d", "nn.BatchNorm2d", "nn.BatchNorm3d"), ("num_features",)),
    "nn.LayerNorm": ("normalized_shape",),
    **dict.fromkeys(("nn.Dropout", "nn.Dropout1d", "nn.Dropout2d", "nn.Dropout3d"), ("p",)),
    "nn.AlphaDropout": ("p",),
    "parts.SharedDropout": ("p",),
    "parts.GaussianDropout": ("p",),
    "parts.GaussianNoise": ("stddev",),
    **dict.fromkeys(("nn.MaxPool1d", "nn.MaxPool2d", "nn.MaxPool3d"), ("kernel_size",)),
    **dict.fromkeys(("nn.AvgPool1d", "nn.AvgPool2d", "nn.AvgPool3d"), ("kernel_size",)),
}
