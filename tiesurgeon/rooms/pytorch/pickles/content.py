"""What a PyTorch file holds, as names that lead to places in the tree of its pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from tiesurgeon.errors import UnreadableFile
from tiesurgeon.rooms.pytorch.pickles import modules
from tiesurgeon.rooms.pytorch.pickles.scripted import is_scripted, scripted_set
from tiesurgeon.rooms.pytorch.pickles.weights import (
    Part,
    Place,
    WeightSet,
    find_sets,
    is_state_dict,
)

Format = Literal["torchscript", "torch-module", "torch-state-dict", "torch-checkpoint"]


@dataclass(frozen=True)
class Spot:
    """A name, and what it leads to."""

    name: str
    where: WeightSet
    part: Part
    place: Place

    @property
    def is_in_module(self) -> bool:
        """True if it is one with another name by being the same object, not the same storage."""
        return self.where.kind == "module"


@dataclass
class Content:
    """The sets of weights in a tree as it is now; made anew after every change of the tree."""

    root: Any
    format: Format
    sets: list[WeightSet]

    @cached_property
    def weight_sets(self) -> list[WeightSet]:
        """The models and state dicts."""
        return [found for found in self.sets if found.kind in ("module", "state dict")]

    @cached_property
    def spots(self) -> dict[str, Spot]:
        """Everything that has a name. UnreadableFile where two tensors have one name."""
        spots: dict[str, Spot] = {}
        for found in self.sets:
            for part in found.parts:
                for place in part.places:
                    name = self.prefix(found) + place.name
                    if name in spots:
                        raise UnreadableFile(f"two tensors are named {name!r}")
                    spots[name] = Spot(name, found, part, place)
        return spots

    def prefix(self, found: WeightSet) -> str:
        """What stands before the names of a set: its path, unless it is the file's one model."""
        is_the_model = found.kind in ("module", "state dict") and len(self.weight_sets) == 1
        if found.kind == "loose" or not found.path or is_the_model:
            return ""
        return f"{found.path}."


def content_of(root: Any, read: Callable[[str], bytes]) -> Content:
    """Finds what a pickle holds; `read` gives the members beside it (TorchScript's code)."""
    if is_scripted(root):
        return Content(root, "torchscript", [scripted_set(root, read)])
    return Content(root, _format(root), find_sets(root))


def _format(root: Any) -> Format:
    if modules.state_of(root) is not None:
        return "torch-module"
    return "torch-state-dict" if is_state_dict(root) else "torch-checkpoint"
