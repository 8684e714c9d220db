"""Keras models converted and compared: what the tests of the mapping share."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import torch

from tiesurgeon.graph import Array, Graph
from tiesurgeon.mapping.registry import Example, pairs
from tiesurgeon.mapping.to_torch import to_torch
from tiesurgeon.rooms.keras.read import read
from tiesurgeon.rooms.pytorch.code.write import write


def examples() -> list[tuple[str, int, Example]]:
    """Every example of the table: the Keras class, a number, the example."""
    found = []
    for name, pair in pairs():
        mine = [example for example in pair.examples if (example.of or pair.keras) == name]
        found += [(name, number, example) for number, example in enumerate(mine)]
    return found


def built(name: str, config: Mapping[str, Any]) -> keras.Layer:
    """The Keras layer of an example; layers that it wraps are given by class and config."""
    layer: keras.Layer = getattr(keras.layers, name)(**{k: _part(v) for k, v in config.items()})
    return layer


def _part(value: Any) -> Any:
    if isinstance(value, list):
        return [_part(item) for item in value]
    if isinstance(value, dict) and "class_name" in value:
        return built(value["class_name"], value["config"])
    return value


def graph_of(model: keras.Model, folder: Path) -> Graph:
    """The Keras graph of a live model, through a file as people have it."""
    path = folder / f"{model.name}.keras"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Keras' own, of numpy 2
        model.save(path)
    return read(path).graph


def converted(model: keras.Model, folder: Path) -> Path:
    """The folder with the model.py of a live Keras model."""
    output = folder / f"{model.name}_torch"
    output.mkdir()
    graph = to_torch(graph_of(model, folder))
    write(graph, output, source=f"{model.name}.keras", version="0.1.0")
    return output


def imported(folder: Path) -> ModuleType:
    """model.py of that folder as a module."""
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def with_random_weights(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with every weight random, so that none hides behind zeros or ones."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path:
            continue
        values = random.normal(0, 0.5, variable.shape)
        positive = variable.path.endswith("variance")
        variable.assign(np.abs(values) + 0.5 if positive else values)
    return model


def assert_formatted(path: Path) -> None:
    """The file is as `ruff format` and `ruff check` leave it."""
    config = Path(__file__).parents[2] / "pyproject.toml"
    options = ["--config", str(config), "--no-cache", str(path)]
    # D: classes speak for themselves here; N812: F is what people call it; B008: a path that
    # the interpreter works out once.
    for command in (["format", "--diff"], ["check", "--ignore", "D,N812,B008"]):
        ruff = [sys.executable, "-m", "ruff", *command, *options]
        found = subprocess.run(ruff, capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr


def outputs_of(result: Any) -> list[Array]:
    """The arrays that a Keras or PyTorch model returns, in order."""
    if isinstance(result, dict):
        return [array for key in sorted(result) for array in outputs_of(result[key])]
    if isinstance(result, (list, tuple)):
        return [array for item in result for array in outputs_of(item)]
    return [result.detach().numpy() if isinstance(result, torch.Tensor) else np.asarray(result)]


def difference(model: keras.Model, inputs: Sequence[Array], folder: Path) -> float:
    """The largest difference between the Keras model and its conversion; checks the shapes."""
    expected = outputs_of(model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
    module = imported(converted(model, folder)).load()
    with torch.no_grad():
        actual = outputs_of(module(*(torch.from_numpy(array) for array in inputs)))
    assert [a.shape for a in actual] == [e.shape for e in expected]
    pairs = zip(actual, expected, strict=True)
    return max(float(np.abs(a.astype("f8") - e.astype("f8")).max()) for a, e in pairs)
