"""Recurrent modules as ONNX's LSTM, GRU and RNN: what PyTorch computes, ONNX Runtime does too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from tests.rooms.pytorch.onnx.exporting import (
    UNITS,
    WIDTH,
    beside_the_script,
    difference,
    exported,
    model,
    numbers,
    part,
)

parts = part("recurrent")
SMALL = 1e-5
KINDS = {
    "lstm": lambda **more: nn.LSTM(WIDTH, UNITS, **more),
    "gru": lambda **more: nn.GRU(WIDTH, UNITS, **more),
    "rnn": lambda **more: nn.RNN(WIDTH, UNITS, **more),
    "relu": lambda **more: nn.RNN(WIDTH, UNITS, nonlinearity="relu", **more),
}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "no_bias": {"bias": False},
    "both_ways": {"bidirectional": True},
    "layers": {"num_layers": 2},
    "layers_both_ways": {"num_layers": 2, "bidirectional": True},
}
STEPWISE = {
    "lstm_relu": lambda: parts.StepwiseLSTM(WIDTH, UNITS, activation=F.relu),
    "lstm_hard": lambda: parts.StepwiseLSTM(WIDTH, UNITS, recurrent_activation=F.hardsigmoid),
    "lstm_linear": lambda: parts.StepwiseLSTM(WIDTH, UNITS, activation=parts.linear),
    "lstm_no_bias": lambda: parts.StepwiseLSTM(WIDTH, UNITS, bias=False, activation=F.softsign),
    "gru_before": lambda: parts.StepwiseGRU(WIDTH, UNITS, reset_after=False),
    "gru_after": lambda: parts.StepwiseGRU(WIDTH, UNITS, activation=F.elu),
    "gru_hard": lambda: parts.StepwiseGRU(WIDTH, UNITS, recurrent_activation=F.hardsigmoid),
    "rnn_sigmoid": lambda: parts.StepwiseRNN(WIDTH, UNITS, activation=torch.sigmoid),
    "rnn_softplus": lambda: parts.StepwiseRNN(WIDTH, UNITS, activation=F.softplus),
}


def masked(rows: int, steps: int) -> np.ndarray:
    """Skipped steps at the start, in the middle and at the end, and a row of nothing else."""
    x = numbers(rows, steps, WIDTH, seed=3)
    x[0, :2] = x[1, 2:4] = x[2, -2:] = x[3] = 0
    return x


def states(kind: str, rows: int, count: int = 1) -> list[np.ndarray]:
    many = 2 if "lstm" in kind else 1
    return [numbers(count, rows, UNITS, seed=5 + n) for n in range(many)]


def nodes(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_form_at_any_size(tmp_path: Path, kind: str, form: str) -> None:
    original = model(KINDS[kind](batch_first=True, **FORMS[form]))
    path = exported(original, [numbers(2, 7, WIDTH)], tmp_path / "m.onnx")
    for rows, steps in ((2, 7), (5, 13), (1, 1)):
        assert difference(original, path, [numbers(rows, steps, WIDTH, seed=1)]) < SMALL
    recurrent = {"LSTM", "GRU", "RNN"}.intersection(nodes(path))
    assert len(recurrent) == 1
    assert not {"Loop", "Scan", "If"}.intersection(nodes(path))


@pytest.mark.parametrize("kind", KINDS)
def test_time_may_come_first(tmp_path: Path, kind: str) -> None:
    original = model(KINDS[kind]())
    path = exported(original, [numbers(7, 2, WIDTH)], tmp_path / "m.onnx")
    assert difference(original, path, [numbers(11, 5, WIDTH)]) < SMALL


@pytest.mark.parametrize("form", ["plain", "both_ways", "layers_both_ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_initial_states(tmp_path: Path, kind: str, form: str) -> None:
    more = FORMS[form]
    count = more.get("num_layers", 1) * (2 if "bidirectional" in more else 1)
    original = model(KINDS[kind](batch_first=True, **more))
    given = [numbers(2, 7, WIDTH), *states(kind, 2, count)]
    path = exported(original, given, tmp_path / "m.onnx")
    assert difference(original, path, given) < SMALL
    assert difference(original, path, [numbers(5, 3, WIDTH), *states(kind, 5, count)]) < SMALL


@pytest.mark.parametrize("form", ["plain", "both_ways"])
@pytest.mark.parametrize("kind", KINDS)
def test_masks_anywhere(tmp_path: Path, kind: str, form: str) -> None:
    original = model(KINDS[kind](batch_first=True, **FORMS[form]), masked=True)
    path = exported(original, [masked(4, 7)], tmp_path / "m.onnx")
    assert difference(original, path, [masked(4, 7)]) < SMALL
    assert difference(original, path, [masked(5, 11)]) < SMALL


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_a_row_of_masked_steps_keeps_its_initial_state(tmp_path: Path, kind: str) -> None:
    original = model(KINDS[kind](batch_first=True), masked=True)
    given = [masked(4, 7), *states(kind, 4)]
    path = exported(original, given, tmp_path / "m.onnx")
    assert difference(original, path, given) < SMALL


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("kind", STEPWISE)
def test_other_activations(tmp_path: Path, kind: str, is_masked: bool) -> None:
    original = model(STEPWISE[kind](), masked=is_masked)
    path = exported(original, [masked(4, 7)], tmp_path / "m.onnx")
    assert difference(original, path, [masked(4, 11)]) < SMALL


def test_an_activation_that_onnx_lacks_is_refused_by_name(tmp_path: Path) -> None:
    original = model(parts.StepwiseLSTM(WIDTH, UNITS, activation=F.gelu))
    with pytest.raises(ValueError, match="rnn has the activation gelu, which ONNX's LSTM"):
        exported(original, [numbers(2, 7, WIDTH)], tmp_path / "m.onnx")


def test_a_projection_is_refused(tmp_path: Path) -> None:
    original = model(nn.LSTM(WIDTH, UNITS, proj_size=2, batch_first=True))
    with pytest.raises(ValueError, match="rnn has proj_size=2"):
        exported(original, [numbers(2, 7, WIDTH)], tmp_path / "m.onnx")


def test_weights_are_named_after_their_module(tmp_path: Path) -> None:
    original = model(nn.GRU(WIDTH, UNITS, num_layers=2, batch_first=True))
    path = exported(original, [numbers(2, 7, WIDTH)], tmp_path / "m.onnx")
    names = {tensor.name for tensor in onnx.load(path).graph.initializer}
    roles = ("weight_ih", "weight_hh", "bias")
    assert names >= {f"rnn.{role}_l{layer}" for role in roles for layer in (0, 1)}


def test_nothing_of_this_machine_is_in_the_file(tmp_path: Path) -> None:
    original = model(nn.GRU(WIDTH, UNITS, batch_first=True))
    path = exported(original, [numbers(2, 7, WIDTH)], tmp_path / "m.onnx")
    assert str(Path(__file__).parents[4]).encode() not in path.read_bytes()


@pytest.mark.parametrize("opset", [17, 19, 20, 21])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_opsets(tmp_path: Path, kind: str, opset: int) -> None:
    original = model(KINDS[kind](batch_first=True), masked=opset > 17)  # 17 has no such ReduceMax
    path = exported(original, [masked(4, 7)], tmp_path / "m.onnx", opset=opset)
    [written] = [one.version for one in onnx.load(path).opset_import if not one.domain]
    assert written == opset
    assert difference(original, path, [masked(5, 11)]) < SMALL


def test_gates_are_in_the_order_of_onnx() -> None:
    """Four numbers, one for each gate of one unit: i f g o becomes i o f c."""
    recurrent = beside_the_script("recurrent")
    rnn = nn.LSTM(1, 1, bias=False)
    with torch.no_grad():
        rnn.weight_ih_l0.copy_(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    matrix = recurrent.onnx_weights(rnn, "LSTM", 0)["weight_ih"]
    assert matrix.flatten().tolist() == [1.0, 4.0, 2.0, 3.0]
