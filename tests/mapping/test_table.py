"""Every example of the table: built in Keras, converted, run in PyTorch, compared."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from tests.mapping.comparing import built, difference, examples, with_random_weights
from tiesurgeon.graph import Array
from tiesurgeon.mapping.registry import Example, pairs


def inputs_of(example: Example) -> list[Array]:
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
            first = len(arrays)
            array[0, -2:] = array[1, : 2 - first] = array[2, 2 : 4 + first] = array[3, 1:] = 0
        arrays.append(array)
    return arrays


def model_of(name: str, example: Example) -> keras.Model:
    """A model of the one layer, with random weights."""
    dtype = "float32" if example.ids is None else "int32"
    inputs = [keras.Input(shape, dtype=dtype) for shape in example.inputs]
    values = [keras.layers.Masking()(x) for x in inputs] if example.mask else inputs
    layer = built(name, {**example.keras, "name": "layer"})
    if name == "MultiHeadAttention":
        result = layer(*values, **example.call)
    else:
        result = layer(values if len(values) > 1 else values[0], **example.call)
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], result, name="example")
    return with_random_weights(model)


@pytest.mark.parametrize(
    ("name", "example"), [pytest.param(n, e, id=f"{n}-{number}") for n, number, e in examples()]
)
def test_example(name: str, example: Example, tmp_path: Path) -> None:
    model = model_of(name, example)
    assert difference(model, inputs_of(example), tmp_path) < 1e-5


def test_every_layer_has_an_example() -> None:
    names = {name for name, _ in pairs() if not name.startswith("ops.")}
    assert names - {name for name, _, _ in examples()} == {"Functional"}
