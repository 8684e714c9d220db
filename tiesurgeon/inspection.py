"""`inspect`: what a model file holds, what is tied in it, and what could be."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiesurgeon.find import Candidate, Tie, candidates, ties
from tiesurgeon.find.across import Held, equal_across
from tiesurgeon.formats import recognise
from tiesurgeon.graph import Graph, Variable


@dataclass(frozen=True)
class Inspection:
    """One model file, seen.

    `total_parameters` counts a variable once for each layer that holds it,
    `unique_parameters` once (see `Graph.size`); `stored_bytes` counts each variable,
    `unique_bytes` each storage. `has_values` is False where no weight was read.
    """

    path: Path
    format: str
    writer: str
    graph: Graph
    ties: tuple[Tie, ...]
    candidates: tuple[Candidate, ...]
    total_parameters: int
    unique_parameters: int
    stored_bytes: int
    unique_bytes: int
    warnings: tuple[str, ...]
    has_values: bool


@dataclass(frozen=True)
class Inspections:
    """Several files, and the matrices that are equal bit by bit between them.

    Names there start with the stem of their file: `a:embedding`.
    """

    files: tuple[Inspection, ...]
    between: tuple[Candidate, ...]


def inspect(path: Path | str, *, values: bool = True, config: Path | None = None) -> Inspection:
    """Looks at one model file; no framework is imported and no code of the model is run.

    Without `values` no weight is read, and candidates are not measured. `config` is the
    architecture for a file of weights only. Raises UnreadableFile or UnsupportedFormat.
    """
    path = Path(path)
    kind = recognise(path)
    room: Any = importlib.import_module(f"tiesurgeon.rooms.{kind.room}.read")
    found = room.read(path, config=config)
    graph: Graph = found.graph
    held = [v for v in graph.variables() if is_parameter(v)]
    seen = (view.variable for layer in graph.layers for view in layer.all_views())
    storages = {id(variable.storage): variable.storage for variable in held}
    return Inspection(
        path,
        found.format or kind.name,
        found.writer,
        graph,
        ties(graph),
        candidates(graph, values=values),
        sum(variable.storage.size for variable in seen if is_parameter(variable)),
        graph.size(),
        sum(variable.storage.nbytes for variable in held),
        sum(storage.nbytes for storage in storages.values()),
        found.notes,
        values,
    )


def inspect_many(
    paths: Sequence[Path], *, values: bool = True, config: Path | None = None
) -> Inspection | Inspections:
    """Looks at several files and compares them; of one file it is `inspect`."""
    files = tuple(inspect(path, values=values, config=config) for path in paths)
    if len(files) == 1:
        return files[0]
    held = [Held(stem, found.graph) for stem, found in zip(_stems(files), files, strict=True)]
    return Inspections(files, equal_across(held) if values else ())


def is_parameter(variable: Variable) -> bool:
    """True for what a model holds as its own: weights and buffers."""
    return variable.kind in ("weight", "buffer")


def _stems(files: Sequence[Inspection]) -> list[str]:
    """The stem of each file, or more of its path where two stems are the same."""
    stems = [found.path.name.split(".")[0] for found in files]
    if len(set(stems)) == len(stems):
        return stems
    return [str(found.path) for found in files]
