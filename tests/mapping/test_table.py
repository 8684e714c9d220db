"""Every example of the table: built in Keras, converted, run in PyTorch, compared."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.mapping.comparing import difference, with_random_weights
from tiesurgeon.graph import Array
from tiesurgeon.mapping import to_torch
from tiesurgeon.mapping.layers.registry import Example, Pair, pairs

assert to_torch


def _examples() -> list[tuple[str, Pair, Example]]:
    found = []
    for name, pair in pairs():
        mine = [e for e in pair.examples if (e.of or pair.keras) == name]
        found += [(f"{name}-{number}", pair, e) for number, e in enumerate(mine)]
    return found


EXAMPLES = _examples()


def _inputs(example: Example) -> list[Array]:
    """Two samples for each input; where a mask is wanted, steps of zeros at the start, in the
    middle and at the end, and one sample of nothing else."""
    random = np.random.default_rng(1)
    arrays = []
    for shape in example.inputs:
        sizes = (4, *(7 if size is None else size for size in shape))
        if example.ids is not None:
            arrays.append(random.integers(0, example.ids, sizes).astype("int32"))
            continue
        array = random.normal(0, 1, sizes).astype("float32")
        if example.mask:
            array[0, -2:] = array[1, :2] = array[2, 2:4] = array[3, 1:] = 0
        arrays.append(array)
    return arrays


@pytest.mark.parametrize(("name", "pair", "example"), [pytest.param(*e, id=e[0]) for e in EXAMPLES])
def test_example(name: str, pair: Pair, example: Example, tmp_path: Path) -> None:
    dtype = "float32" if example.ids is None else "int32"
    inputs = [keras.Input(shape, dtype=dtype) for shape in example.inputs]
    config = {key: _built(value) for key, value in example.keras.items()}
    layer = getattr(keras.layers, name.split("-")[0])(name="layer", **config)
    first = keras.layers.Masking()(inputs[0]) if example.mask else inputs[0]
    result = layer([first, *inputs[1:]] if len(inputs) > 1 else first, **example.call)
    model = with_random_weights(
        keras.Model(inputs if len(inputs) > 1 else inputs[0], result, name="example")
    )
    assert difference(model, _inputs(example), tmp_path) < 1e-5


def _built(value: object) -> object:
    """A wrapped layer of an example, which is given by its class and config."""
    if isinstance(value, dict) and "class_name" in value:
        return getattr(keras.layers, value["class_name"])(**value["config"])
    return value


def test_every_layer_has_an_example() -> None:
    without = {name for name, _ in pairs() if not name.startswith("ops.")}
    without -= {name.partition("-")[0] for name, _, _ in EXAMPLES}
    assert without == {"Functional"}
