"""A Keras file that can be called on arrays, by the Keras that wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiesurgeon.errors import CannotRun, MissingFramework, ProofFailed, TiesurgeonError
from tiesurgeon.graph import Array, Graph, Value, values_in
from tiesurgeon.rooms.keras import run, surgery
from tiesurgeon.rooms.keras.examples import enough_steps, vocabularies
from tiesurgeon.rooms.keras.read import KerasFile, read
from tiesurgeon.rooms.keras.write import write_keras
from tiesurgeon.running import Ran, Runnable, Wanted, Weights

_CURE = "with its architecture it is a model: tiesurgeon convert {} --config model.json --to keras"


@dataclass(frozen=True)
class RunnableKeras:
    """A whole model, in a file."""

    path: Path
    format: str
    found: KerasFile

    @property
    def wanted(self) -> tuple[Wanted, ...]:
        """As the input layers say."""
        return wanted_by(self.found.graph)

    def run(self, inputs: Mapping[str, Array] | None, ids: frozenset[str]) -> Ran:
        """The outputs; of its modern form, with a warning, where no Keras here opens the file."""
        assert inputs is not None  # they are wanted by name
        graph = self.found.graph
        got, warnings = outputs_of(graph, self.path, inputs, self.found.writer)
        return Ran(named(graph, got), inputs, warnings=warnings)


def open_runnable(path: Path, format: str, *, trust_code: bool) -> Runnable | Weights:
    """Opens a Keras file.

    Raises CannotRun where running it would be running Python code of someone's: that of a
    Lambda, a custom layer or a subclassed model.
    """
    found = read(path)
    if found.graph.calls:
        _refuse_unrunnable(path, found.graph)
        return RunnableKeras(path, format, found)
    if found.graph.op in ("", "Sequential"):
        return Weights(path, found.format or format, found.graph, _CURE.format(path))
    raise CannotRun(
        f"{path}: {found.graph.op} is a subclassed model, whose graph is Python code and not in "
        "the file, so it is not run"
    )


def _refuse_unrunnable(path: Path, graph: Graph) -> None:
    if reason := surgery.foreign_code(graph):
        raise CannotRun(f"{path}: {reason}, so it is not run; compare it yourself")
    if not run.is_installed():
        raise MissingFramework(
            f'{path} is run by Keras, which is not installed; pip install "tiesurgeon[keras]"'
        )


def outputs_of(
    graph: Graph, path: Path, inputs: Mapping[str, Array], writer: str
) -> tuple[tuple[Array, ...], tuple[str, ...]]:
    """What a file gives, flat; where no Keras here opens it, its modern form, with a warning.

    `graph` and `writer` are what was read from it. Raises CannotRun where that does not run either.
    """
    try:
        return run.outputs(path, inputs, run.writer(graph, writer)), ()
    except ProofFailed as error:
        said = error.__cause__ or error
    with TemporaryDirectory(prefix="tiesurgeon-modern-") as folder:
        modern = Path(folder, "modern.keras")
        try:
            write_keras(surgery.expressible(graph), modern, provenance={})
            outputs = run.outputs(modern, inputs, "keras 3")
        except TiesurgeonError:
            raise CannotRun(f"{path}: Keras cannot run it ({said})") from None
    return outputs, (f"no Keras here opens {path}: its modern form was run instead ({said})",)


def wanted_by(graph: Graph) -> tuple[Wanted, ...]:
    """What the input layers of a graph take."""
    steps, found = enough_steps(graph), []
    for value in values_in(graph.inputs):
        layer = graph.layer(graph.call_by_id[value.call].layer)
        dims = layer.config.get("batch_shape") or layer.config.get("batch_input_shape") or [None]
        found.append(
            Wanted(
                layer.name,
                tuple(dims),
                str(layer.config.get("dtype") or "float32"),
                min(vocabularies(graph, value), default=None),
                steps,
            )
        )
    return tuple(found)


def named(graph: Graph, outputs: Sequence[Array]) -> tuple[tuple[str, Array], ...]:
    """Flat outputs with the names of their layers, or of their keys."""
    names = list(_names(graph, graph.outputs))
    if len(names) != len(outputs) or len(set(names)) != len(names):
        names = [""] * len(outputs)
    return tuple(zip(names, outputs, strict=True))


def _names(graph: Graph, structure: Any) -> list[str]:
    """In Keras' order, which is that of the sorted keys in a dict."""
    if isinstance(structure, Value):
        return [graph.call_by_id[structure.call].layer]
    if isinstance(structure, Mapping):
        inner = {key: _names(graph, structure[key]) for key in sorted(structure)}
        return [
            str(key) if len(names) == 1 else name for key, names in inner.items() for name in names
        ]
    return [name for item in structure for name in _names(graph, item)]
