"""The state of an optimizer when two parameters become one: which entry goes, and is it certain.

`Optimizer.state_dict()` knows parameters by number only, counted over all groups in the order
in which they were given. https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.state_dict.html
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiesurgeon.graph import Shape
from tiesurgeon.rooms.pytorch import bare
from tiesurgeon.rooms.pytorch.pickles import mappings
from tiesurgeon.rooms.pytorch.pickles.nodes import Record, walk
from tiesurgeon.rooms.pytorch.pickles.recognised import Tensor, tensor_of
from tiesurgeon.rooms.pytorch.pickles.weights import Place, WeightSet

_AVERAGES = ("ema", "swa", "average", "teacher")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a set of weights, as an optimizer that trains the set would count it."""

    names: tuple[str, ...]
    tensor: Tensor

    def holds(self, place: Place) -> bool:
        """True if the place is one of its names."""
        return place.name in self.names


def parameters_of(found: WeightSet) -> list[Parameter]:
    """The parameters in order, each once: names on one Parameter, or on one storage, are one."""
    by_identity: dict[Any, list[Place]] = {}
    for place in found.places:
        if _is_parameter(found, place):
            by_identity.setdefault(_identity(found, place.tensor), []).append(place)
    return [
        Parameter(tuple(place.name for place in places), places[0].tensor)
        for places in by_identity.values()
    ]


def _is_parameter(found: WeightSet, place: Place) -> bool:
    if found.kind == "module":
        return place.kind == "weight"
    return bare.is_trainable(place.name, place.tensor.layout.dtype)


def _identity(found: WeightSet, tensor: Tensor) -> Any:
    if found.kind == "module":
        return id(tensor.record)
    layout = tensor.layout
    return tensor.storage.key, layout.offset, tuple(sorted(layout.shape))


class Optimizer:
    """What `optimizer.state_dict()` gives, or the like inside of a pickled optimizer."""

    def __init__(self, found: WeightSet) -> None:
        self.path = found.path or "its optimizer"
        self.node = found.node
        self._state = mappings.get(found.node, "state")
        self._groups = mappings.get(found.node, "param_groups")

    @property
    def is_live(self) -> bool:
        """True for an optimizer that was pickled itself, and holds the Parameters."""
        return any(type(number) is Record for number in self._numbers)

    def numbering(self, parameters: Sequence[Parameter]) -> Mapping[int, Any]:
        """The number that the optimizer has for each parameter that it trains; none if uncertain.

        It is certain where names are stored, or where there are as many numbers as parameters
        and the shapes of all that is stored agree. Where several groups were given, parameters
        of one shape must lie in one group, and every group be in the order of the model.
        """
        numbers = self._numbers
        if self.is_live:
            ids = {id(number): number for number in numbers}
            places = enumerate(id(parameter.tensor.record) for parameter in parameters)
            return {place: ids[key] for place, key in places if key in ids}
        if not all(type(number) in (int, str) for number in numbers):
            return {}
        if len(set(numbers)) < len(numbers) or not numbers:
            return {}
        shapes = [self._shape(number) for number in numbers]
        every = range(len(parameters))
        for counted in (every, [i for i in every if parameters[i].tensor.requires_grad]):
            wanted = [parameters[i] for i in counted]
            found = self._by_name(wanted) or self._by_order(shapes, wanted)
            found = found or self._by_shape(shapes, wanted)
            if found:
                return {counted[place]: number for place, number in found.items()}
        return {}

    def _by_name(self, parameters: Sequence[Parameter]) -> Mapping[int, Any]:
        lists = [mappings.get(group, "param_names") for group in self._groups]
        names = [name for group in lists if type(group) is list for name in group]
        if len(names) != len(self._numbers) or not all(type(name) is str for name in names):
            return {}
        by_name = dict(zip(names, self._numbers, strict=True))
        known = [[by_name[name] for name in p.names if name in by_name] for p in parameters]
        return {place: found[0] for place, found in enumerate(known) if found}

    def _by_order(
        self, shapes: Sequence[Any], parameters: Sequence[Parameter]
    ) -> Mapping[int, Any]:
        wanted = [parameter.tensor.layout.shape for parameter in parameters]
        if len(self._lists) != 1 or len(shapes) != len(wanted):
            return {}
        agree = all(own in (None, shape) for own, shape in zip(shapes, wanted, strict=True))
        return dict(enumerate(self._numbers)) if agree else {}

    def _by_shape(
        self, shapes: Sequence[Any], parameters: Sequence[Parameter]
    ) -> Mapping[int, Any]:
        wanted = [parameter.tensor.layout.shape for parameter in parameters]
        if None in shapes or Counter(shapes) != Counter(wanted):
            return {}
        found: dict[int, Any] = {}
        for shape in set(wanted):
            alike = [n for n, own in zip(self._numbers, shapes, strict=True) if own == shape]
            places = [place for place, own in enumerate(wanted) if own == shape]
            if not any(set(alike) <= set(numbers) for numbers in self._lists):
                return {}
            found |= zip(places, alike, strict=True)
        place_of = {number: place for place, number in found.items()}
        orders = [[place_of[number] for number in numbers] for numbers in self._lists]
        return found if all(order == sorted(order) for order in orders) else {}

    @property
    def _lists(self) -> list[list[Any]]:
        """The numbers (or Parameters) of every group."""
        found = [mappings.get(group, "params") for group in self._groups]
        return [numbers for numbers in found if type(numbers) is list]

    @property
    def _numbers(self) -> list[Any]:
        return [number for numbers in self._lists for number in numbers]

    def _shape(self, number: Any) -> Shape | None:
        """Shape of the parameter of that number, as its state tells; None without a state."""
        slots = mappings.get(self._state, number)
        for _, slot in mappings.items(slots) if mappings.is_mapping(slots) else ():
            tensor = tensor_of(slot)
            if tensor is not None and tensor.layout.shape:
                return tensor.layout.shape
        return None

    def remove(self, number: Any) -> None:
        """Forgets a parameter; later ones are counted one lower."""

        def lower(found: Any) -> Any:
            if found is number or found == number:
                return None
            is_later = type(found) is int and type(number) is int and found > number
            return found - 1 if is_later else found

        for group in self._groups:
            numbers, names = mappings.get(group, "params"), mappings.get(group, "param_names")
            if type(numbers) is not list:
                continue
            if type(names) is list and len(names) == len(numbers):
                pairs = zip(numbers, names, strict=True)
                names[:] = [name for found, name in pairs if lower(found) is not None]
            numbers[:] = [new for found in numbers if (new := lower(found)) is not None]
        mappings.rekey(self._state, lower)


def owner_of(optimizer: Optimizer, sets: Sequence[WeightSet]) -> WeightSet | None:
    """The weights that an optimizer trains, as counts and shapes say; not a copy of averages."""
    fitting = [found for found in sets if optimizer.numbering(parameters_of(found))]
    trained = [found for found in fitting if not _is_average(found.path)]
    return next(iter(trained or fitting), None)


def _is_average(path: str) -> bool:
    return any(word in path.lower() for word in _AVERAGES)


def take_out(root: Any, node: Any) -> None:
    """Removes a node from whatever dict or list below the root holds it."""
    for holder in list(walk(root)):
        if mappings.is_mapping(holder):
            for key, value in mappings.items(holder):
                if value is node:
                    mappings.drop(holder, key)
        elif type(holder) is list:
            holder[:] = [item for item in holder if item is not node]
