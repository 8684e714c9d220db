"""What stands in a Keras graph and is no layer."""

import pytest

from tiesurgeon.graph import Layer
from tiesurgeon.mapping.keras_operations import is_operation


@pytest.mark.parametrize("module", ["keras.src.ops.numpy", "keras.ops", "keras.src.ops.nn"])
def test_keras_operations_are_told_from_layers(module: str) -> None:
    assert is_operation(Layer("add", "Add", entry={"module": module}))


@pytest.mark.parametrize("module", ["keras.layers", None, "my.ops.layers", "keras_ops"])
def test_a_custom_layer_from_a_package_called_ops_is_a_layer(module: str | None) -> None:
    assert not is_operation(Layer("add", "Add", entry={"module": module}))
    assert not is_operation(Layer("add", "Add"))
