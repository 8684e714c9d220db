"""PyTorch variables for Keras ones: the same Keras variable always gives the same object.

A variable that two layers want in two layouts (a dense layer and its transposed decoder) can
be only one parameter. The first pass over a model collects every layout wanted; `choose` then
fixes which layout is stored, and the second pass gives everyone a view of that one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tiesurgeon.errors import UnmappedLayer
from tiesurgeon.graph import Array, Kind, Storage, Variable, View, in_memory
from tiesurgeon.mapping.layout import Layout, of_view

Chosen = dict[tuple[Variable, Layout], Layout]


@dataclass
class Parameters:
    """Hands out PyTorch variables; `wanted` records what was asked for, in order."""

    chosen: Chosen = field(default_factory=dict)
    wanted: dict[Variable, list[tuple[Layout, bool]]] = field(default_factory=dict)
    _made: dict[tuple[Variable, Layout], Variable] = field(default_factory=dict)

    def view(self, name: str, role: str, keras: View, layout: Layout, is_table: bool) -> View:
        """How a PyTorch layer sees what a Keras layer sees as `keras`, put into `layout`."""
        wanted = of_view(keras).then(layout)
        self.wanted.setdefault(keras.variable, []).append((wanted, is_table))
        stored = self.chosen.get((keras.variable, wanted), wanted)
        variable = self._made.get((keras.variable, stored))
        if variable is None:
            variable = replace(
                keras.variable, name=name, storage=_laid_out(keras.variable.storage, stored)
            )
            self._made[keras.variable, stored] = variable
        if stored == wanted:
            return View(role, variable)
        axes = stored.inverse().then(wanted).permutation
        if axes is None:
            raise UnmappedLayer(
                f"{name}: its tie to {variable.name} is more than a transpose, which no PyTorch "
                f"layer can express; untie it first"
            )
        return View(role, variable, perm=axes)


def choose(wanted: dict[Variable, list[tuple[Layout, bool]]]) -> Chosen:
    """Which layout stands for each wanted one: an embedding's where there is one (people write
    `dense.weight = embedding.weight`), else the first."""
    chosen: Chosen = {}
    for variable, uses in wanted.items():
        tables = [layout for layout, is_table in uses if is_table]
        owners = list(dict.fromkeys(tables + [layout for layout, _ in uses]))
        stored: list[Layout] = []
        for layout in owners:
            owner = next((have for have in stored if _is_transpose(have, layout)), None)
            if owner is None:
                _check_disjoint(variable, stored, layout)
                stored.append(layout)
            chosen[variable, layout] = owner or layout
    return chosen


def constant(name: str, role: str, array: Array, kind: Kind = "weight") -> View:
    """Numbers that are no Keras variable: a frozen parameter, or a buffer."""
    return View(role, Variable(name, in_memory(name, array), trainable=False, kind=kind))


def _laid_out(storage: Storage, layout: Layout) -> Storage:
    shape = layout.shape(storage.shape)
    return Storage(storage.key, shape, storage.dtype, lambda: layout.apply(storage.load()))


def _is_transpose(have: Layout, want: Layout) -> bool:
    if have == want:
        return True
    try:
        return have.inverse().then(want).permutation is not None
    except ValueError:  # one part of a variable says nothing of the others
        return False


def _check_disjoint(variable: Variable, stored: list[Layout], layout: Layout) -> None:
    """Several layouts of one variable must be parts of it that do not overlap."""
    for have in stored:
        different_parts = have.parts and layout.parts and have.parts != layout.parts
        if not different_parts:
            raise UnmappedLayer(
                f"{variable.name}: two layers share it in layouts that one PyTorch parameter "
                f"cannot give both; untie them first"
            )
