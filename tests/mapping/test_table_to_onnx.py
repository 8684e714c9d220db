"""The examples of the table as ONNX: exported, run by ONNX Runtime, compared with Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.exporter_here import export_here
from tests.mapping.comparing import examples, outputs_of
from tests.mapping.test_table import inputs_of, model_of
from tiesurgeon import operations
from tiesurgeon.mapping.registry import Example

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN")


def chosen() -> list[Any]:
    """Of recurrent layers every example: they are translated here. Of others the first and last;
    the exporter knows their operators."""
    last = {name: number for name, number, _ in examples()}
    return [
        pytest.param(name, example, id=f"{name}-{number}")
        for name, number, example in examples()
        if name in RECURRENT or number in (0, last[name])
    ]


@pytest.mark.parametrize(("name", "example"), chosen())
def test_example(
    name: str, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_here(monkeypatch)
    model, inputs = model_of(name, example), inputs_of(example)
    model.save(tmp_path / "m.keras")
    operations.convert(tmp_path / "m.keras", "onnx", proof="static")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    given = dict(zip([one.name for one in session.get_inputs()], inputs, strict=True))
    expected = outputs_of(model(inputs if len(inputs) > 1 else inputs[0], training=False))
    for actual, wanted in zip(session.run(None, given), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5)
