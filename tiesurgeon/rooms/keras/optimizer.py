"""A fresh optimizer's variables, so that stock Keras compiles a written `.keras` in silence.

Keras warns when a compiled model's file has no state for the optimizer. These are the values
it would begin with; as HDF5 stores no block that was never written, zeros cost no space.
Source: keras/src/optimizers (3.15.1), `build` of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tiesurgeon.graph import Graph, Shape
from tiesurgeon.rooms.keras.slots import slots
from tiesurgeon.rooms.keras.training import Training

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Filled:
    """An array of one value."""

    shape: Shape
    dtype: np.dtype[Any]
    value: float = 0.0


def _moments(count: int) -> Callable[[Config], list[list[float]]]:
    return lambda _: [[0.0] * count]


def _adam(config: Config) -> list[list[float]]:
    return [[0.0, 0.0], *([[0.0]] if config.get("amsgrad") else [])]


def _sgd(config: Config) -> list[list[float]]:
    return [[0.0]] if config.get("momentum") else []


def _rmsprop(config: Config) -> list[list[float]]:
    flags = (True, (config.get("momentum") or 0) > 0, config.get("centered"))
    return [[0.0] for flag in flags if flag]


def _adagrad(config: Config) -> list[list[float]]:
    return [[float(config.get("initial_accumulator_value", 0.1))]]


# One entry for each sweep over the trainable variables: the values that it gives each of them.
_SWEEPS: dict[str, Callable[[Config], list[list[float]]]] = {
    "Adam": _adam,
    "AdamW": _adam,
    "SGD": _sgd,
    "RMSprop": _rmsprop,
    "Adagrad": _adagrad,
    "Adadelta": _moments(2),
    "Adamax": _moments(2),
    "Lamb": _moments(2),
    "Lion": _moments(1),
}


def fresh_state(training: Training | None, graph: Graph) -> list[Filled]:
    """The variables in Keras' order; none for an optimizer whose state is not known here."""
    optimizer = None if training is None else training.get("optimizer")
    if isinstance(optimizer, str):
        names = {name.lower(): name for name in _SWEEPS}
        optimizer = {"class_name": names.get(optimizer.lower()), "config": {}}
    if not isinstance(optimizer, Mapping) or optimizer.get("class_name") not in _SWEEPS:
        return []
    config = optimizer["config"]
    if config.get("use_ema") or config.get("gradient_accumulation_steps"):
        return []
    state = [Filled((), np.dtype("int64"))]
    rate = config.get("learning_rate", 0.001)
    if isinstance(rate, (int, float)):  # a schedule is no variable
        state.append(Filled((), np.dtype("float32"), float(rate)))
    trained = list(_trained(graph))
    for values in _SWEEPS[optimizer["class_name"]](config):
        state += [Filled(shape, dtype, value) for shape, dtype in trained for value in values]
    return state


def _trained(graph: Graph) -> Iterator[tuple[Shape, np.dtype[Any]]]:
    """Shape and type of what Keras will train after loading, in the order of `model.weights`."""
    if not graph.config.get("trainable", True):
        return
    for layer in graph.layers:
        for slot in slots(layer, layer.name):
            view = slot.layer.view(slot.role)
            if slot.reloaded and view is not None:
                dtype = view.variable.storage.dtype
                # HDF5 has no bfloat16; Keras casts what it assigns.
                yield view.shape, dtype if dtype.kind == "f" else np.dtype("float32")
