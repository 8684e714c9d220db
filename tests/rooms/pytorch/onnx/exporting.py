"""Recurrent modules exported to ONNX in this process, as `export_script.py` does it."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from tiesurgeon.rooms.pytorch.onnx import export_script

ROOM = Path(export_script.__file__).parent
WIDTH, UNITS = 5, 3
Arrays = list[np.ndarray]


def beside_the_script(name: str) -> ModuleType:
    """A module as the script imports it: it registers operators, so there is only one."""
    sys.path.insert(0, str(ROOM))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOM))


def part(name: str) -> ModuleType:
    """What is copied into a written model.py."""
    return importlib.import_module(f"tiesurgeon.rooms.pytorch.code.parts.{name}")


class Model(nn.Module):
    """Calls its recurrent module; `masked`: only on steps in which any number is not zero."""

    def __init__(self, rnn: nn.Module, masked: bool) -> None:
        super().__init__()
        self.rnn, self.masked, self.is_stepwise = rnn, masked, hasattr(rnn, "activation")
        self.is_lstm = isinstance(rnn, nn.LSTM)
        self.code = SimpleNamespace(run_masked=part("masked").run_masked)

    def forward(self, x: Tensor, *states: Tensor) -> Any:
        state = None
        if states:
            state = states if self.is_lstm else states[0]
        if not self.masked:
            return self.rnn(x, state)
        mask = (x != 0).any(dim=-1)
        if self.is_stepwise:
            return self.rnn(x, state, mask=mask)
        return self.code.run_masked(self.rnn, x, mask, state)


def model(rnn: nn.Module, *, masked: bool = False) -> Model:
    """A model of one recurrent module, with random weights.

    Of Keras' one bias PyTorch makes two, the second of them zero: but for a GRU, stepwise
    modules have no use for it.
    """
    is_one_bias = hasattr(rnn, "activation") and not isinstance(rnn, nn.GRU)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(rnn.named_parameters()):
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.copy_(0.0 * noise if is_one_bias and "bias_hh" in name else 0.5 * noise)
    return Model(rnn, masked).eval()


def exported(original: Model, inputs: Arrays, path: Path, *, opset: int = 18) -> Path:
    """An ONNX file of the model, free in batch and time."""
    recurrent, traced = beside_the_script("recurrent"), copy.deepcopy(original)
    recurrent.make_opaque(traced.code, traced)
    free = torch.export.Dim.AUTO
    shapes = tuple({0: free, 1: free} if n == 0 else {1: free} for n in range(len(inputs)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            traced,
            tuple(map(torch.from_numpy, inputs)),
            dynamo=True,
            optimize=False,
            verbose=False,
            opset_version=opset,
            dynamic_shapes=(shapes[0], shapes[1:]) if len(shapes) > 1 else shapes,
            custom_translation_table=recurrent.TRANSLATIONS,
        )
    assert program is not None
    beside_the_script("tidying").tidy(program.model, {})
    program.save(path)
    return path


def run(path: Path, inputs: Arrays) -> Arrays:
    """What ONNX Runtime makes of a file that ONNX's checker accepts."""
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def outputs(original: Model, inputs: Arrays) -> Arrays:
    """What PyTorch makes of them: the output and the final states."""
    with torch.no_grad():
        y, final = original(*map(torch.from_numpy, inputs))
    return [one.numpy() for one in (y, *(final if isinstance(final, tuple) else (final,)))]


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("f4")


def difference(original: Model, path: Path, inputs: Arrays) -> float:
    """The largest difference over all outputs; checks the shapes."""
    meant, got = outputs(original, inputs), run(path, inputs)
    assert [y.shape for y in meant] == [y.shape for y in got]
    return max(float(np.abs(a - b).max()) for a, b in zip(meant, got, strict=True))
