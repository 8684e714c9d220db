"""A model that can be called on arrays, whatever its format: what every room offers to `verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tiesurgeon.graph import Array, Graph, Layer, Value

# Open sizes are None, or the name that a file gives them.
Sizes = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Wanted:
    """An input as a file describes it.

    shape  None where the file does not tell, open sizes within it None or named
    dtype  a name of numpy's, "string", or "" where the file does not tell
    below  for ids: the number of rows in the smallest table that they are looked up in
    steps  a length that surely is long enough for the open sizes, where one is known
    """

    name: str
    shape: Sizes | None = None
    dtype: str = ""
    below: int | None = None
    steps: int | None = None


@dataclass(frozen=True)
class Ran:
    """What a model gave: its outputs in order, "" for one without a name.

    `inputs` are those that the model was called on, by its own names for them, and `words`
    say where they are from, if it had to find them itself.
    """

    outputs: tuple[tuple[str, Array], ...]
    inputs: Mapping[str, Array]
    words: str = ""
    warnings: tuple[str, ...] = ()


class Runnable(Protocol):
    """A model that its framework can run, in a process of its own."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def format(self) -> str:
        """A name of `formats.FORMATS`, or "torch" for a folder with a `model.py`."""

    @property
    def wanted(self) -> tuple[Wanted, ...] | None:
        """The inputs, in order; None where only trying tells."""

    def run(self, inputs: Mapping[str, Array] | None, ids: frozenset[str]) -> Ran:
        """The outputs on inputs by name, of which some are `ids`; None: found by trying.

        Raises CannotRun where the model does not take them, and other errors where it cannot
        be opened at all.
        """


@dataclass(frozen=True)
class Weights:
    """A file of weights alone, which has nothing to run; `cure` says what would make a model."""

    path: Path
    format: str
    graph: Graph
    cure: str


def rows_below(
    graph: Graph,
    value: Value,
    rows: Callable[[Layer], int | None],
    passing: frozenset[str],
) -> int | None:
    """The rows of the smallest table in which a value is looked up; None if it is in none.

    `rows` gives those of a layer that looks up; layers whose op is `passing` hand ids on.
    """
    return min(_tables(graph, value, rows, passing), default=None)


def _tables(
    graph: Graph, value: Value, rows: Callable[[Layer], int | None], passing: frozenset[str]
) -> Iterator[int]:
    waiting, seen = [value], {value}
    for one in waiting:  # which grows
        for call in graph.consumers(one):
            layer = graph.layer(call.layer)
            found = rows(layer)
            if found is not None:
                yield found
            following = Value(call.id)
            if layer.op in passing and following not in seen:
                seen.add(following)
                waiting.append(following)
