"""Layer names as Python names."""

import pytest
import torch

from tiesurgeon.mapping.names import MODULE_ATTRIBUTES, Names, class_name, identifier


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dense", "dense"),
        ("dense-1", "dense_1"),
        ("tf.math.add", "tf_math_add"),
        ("1x", "layer_1x"),
        ("класс", "_____"),
        ("class", "class_"),
        ("forward", "forward_"),
        ("F", "F_"),
        ("", "layer_"),
    ],
)
def test_identifier(name: str, expected: str) -> None:
    assert identifier(name) == expected
    assert expected.isidentifier()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("char_lm", "CharLm"),
        ("encoderGRU", "EncoderGRU"),
        ("my-model.v2", "MyModelV2"),
        ("3d", "Model3d"),
        ("none", "None_"),
        ("tensor", "Tensor_"),
        ("_", "Model"),
    ],
)
def test_class_name(name: str, expected: str) -> None:
    assert class_name(name) == expected


def test_every_attribute_of_a_module_is_avoided() -> None:
    attributes = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
    assert attributes <= MODULE_ATTRIBUTES


def test_names_are_given_out_once() -> None:
    names = Names(frozenset(("x",)))
    assert [names.new("x"), names.new("y"), names.new("x")] == ["x_2", "y", "x_3"]
