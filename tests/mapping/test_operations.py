"""Every `keras.ops` node of the table, compared with Keras."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.mapping.comparing import difference
from tiesurgeon.mapping.layers.operations import BINARY, REDUCTIONS, UNARY
from tiesurgeon.mapping.registry import pairs

RANDOM = np.random.default_rng(0)
POSITIVE = {"Log", "Log1p", "Sqrt", "Rsqrt", "Power"}
OF_TRUTH = {"LogicalAnd", "LogicalOr", "LogicalNot"}
NAMES = {"Abs": "absolute", "TrueDivide": "true_divide", "Amax": "amax", "Amin": "amin"}

OTHERS: dict[str, Callable[[Any], Any]] = {
    "Cast": lambda x: ops.cast(x, "int32"),
    "Clip": lambda x: ops.clip(x, -0.5, 0.7),
    "Concatenate": lambda x: ops.concatenate([x, x * 2.0], axis=1),
    "Cumsum": lambda x: ops.cumsum(x, axis=1),
    "Einsum": lambda x: ops.einsum("bij->bji", x),
    "ExpandDims": lambda x: ops.expand_dims(x, 1),
    "Gelu": ops.gelu,
    "GetItem": lambda x: x[..., -2:, 1],
    "LeakyRelu": lambda x: ops.leaky_relu(x, 0.1),
    "LogSoftmax": lambda x: ops.log_softmax(x, axis=1),
    "OnesLike": ops.ones_like,
    "Reshape": lambda x: ops.reshape(x, (-1, 5, 7)),
    "Softmax": lambda x: ops.softmax(x, axis=1),
    "Split": lambda x: ops.split(x, [2, 3], axis=1),
    "Squeeze": lambda x: ops.squeeze(x[:, :1], axis=1),
    "Stack": lambda x: ops.stack([x, x + 1.0], axis=-1),
    "Transpose": lambda x: ops.transpose(x, (2, 0, 1)),
    "Where": lambda x: ops.where(x > 0.0, x, -1.0),
    "ZerosLike": lambda x: ops.zeros_like(x, dtype="int32"),
}
NOT_OF_KERAS = {"EveryStep"}


def _function(name: str) -> Callable[..., Any]:
    snake = NAMES.get(name, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    function: Callable[..., Any] = getattr(ops, snake)
    return function


def _check(results: Any, inputs: list[Any], name: str, folder: Path) -> None:
    model = keras.Model(inputs if len(inputs) > 1 else inputs[0], results, name="operation")
    arrays = [RANDOM.normal(0, 1, (2, *x.shape[1:])).astype("float32") for x in inputs]
    if name in POSITIVE:
        arrays = [np.abs(array) + 0.1 for array in arrays]
    if "Equal" in name:
        arrays = [np.round(array) for array in arrays]
    assert difference(model, arrays, folder) < 1e-5


def test_every_operation_is_tested() -> None:
    known = {name.removeprefix("ops.") for name, _ in pairs() if name.startswith("ops.")}
    assert known == {*BINARY, *UNARY, *REDUCTIONS, *OTHERS, *NOT_OF_KERAS}


@pytest.mark.parametrize("name", BINARY)
def test_of_two(name: str, tmp_path: Path) -> None:
    x, y = keras.Input((7, 5)), keras.Input((5, 5) if name == "Matmul" else (7, 5))
    given = [ops.greater(x, 0.0), ops.greater(y, 0.0)] if name in OF_TRUTH else [x, y]
    _check(_function(name)(*given), [x, y], name, tmp_path)


@pytest.mark.parametrize("name", [name for name in BINARY if name not in ("Matmul", *OF_TRUTH)])
def test_of_a_tensor_and_a_number(name: str, tmp_path: Path) -> None:
    x = keras.Input((7, 5))
    function = _function(name)
    _check([function(x, 2.0), function(0.5, x)], [x], name, tmp_path)


@pytest.mark.parametrize("name", UNARY)
def test_of_one(name: str, tmp_path: Path) -> None:
    x = keras.Input((7, 5))
    given = ops.greater(x, 0.0) if name in OF_TRUTH else x
    _check(_function(name)(given), [x], name, tmp_path)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name: str, tmp_path: Path) -> None:
    x = keras.Input((7, 5))
    given = ops.greater(x, 0.0) if name in ("Any", "All") else x
    function = _function(name)
    results = [function(given, axis=-1), function(given, axis=1, keepdims=True)]
    if name != "Prod":
        results += [function(given), function(given, axis=(1, 2))]
    _check(results, [x], name, tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str, tmp_path: Path) -> None:
    x = keras.Input((7, 5))
    _check(OTHERS[name](x), [x], name, tmp_path)
