"""A conversion between frameworks is judged by what both compute."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tiesurgeon import operations
from tiesurgeon.crossing import to_torch
from tiesurgeon.errors import ProofFailed
from tiesurgeon.rooms.pytorch.code import run as torch_run
from tiesurgeon.rooms.pytorch.code import write as pytorch_write

pytestmark = pytest.mark.usefixtures("proof_here")
layers = keras.layers


@pytest.fixture
def model(tmp_path: Path) -> Path:
    x = layers.Input((3,), name="x")
    keras.Model(x, layers.Dense(5, activation="tanh", name="dense")(x)).save(tmp_path / "m.keras")
    return tmp_path / "m.keras"


def test_equal_outputs_pass(model: Path) -> None:
    outcome = operations.convert(model, "torch")
    assert outcome.proof.reread
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-6
    assert outcome.output == model.with_name("m_torch")


@pytest.mark.parametrize("wrong", [lambda y: y + 1e-3, lambda y: y[:, :2]])
def test_other_outputs_leave_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    right = torch_run.run

    def run(*args: Any) -> torch_run.Run:
        found = right(*args)
        return torch_run.Run(tuple(wrong(y) for y in found.outputs), found.poke, found.step)

    monkeypatch.setattr(torch_run, "run", run)
    with pytest.raises(ProofFailed, match="differ"):
        operations.convert(model, "torch")
    assert [path.name for path in model.parent.iterdir()] == ["m.keras"]


def test_a_module_that_does_not_load_leaves_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pytorch_write.write

    def broken(graph: Any, folder: Path, **options: Any) -> None:
        write(graph, folder, **options)
        text = (folder / "model.py").read_text(encoding="utf-8")
        (folder / "model.py").write_text(text.replace("self.dense(x)", "self.dens(x)"))

    monkeypatch.setattr(to_torch, "write", broken)
    with pytest.raises(ProofFailed, match="dens"):
        operations.convert(model, "torch")
    assert [path.name for path in model.parent.iterdir()] == ["m.keras"]


def test_numbers_that_are_none_are_kept_with_a_word(tmp_path: Path) -> None:
    x = layers.Input((3,), name="x")
    built = keras.Model(x, layers.Dense(5, name="dense")(x))
    kernel, bias = built.get_layer("dense").get_weights()
    kernel[0, 0] = np.nan
    built.get_layer("dense").set_weights([kernel, bias])
    built.save(tmp_path / "m.keras")
    outcome = operations.convert(tmp_path / "m.keras", "torch")
    assert outcome.proof.max_abs_diff is not None
    assert outcome.proof.max_abs_diff < 1e-6
    assert outcome.warnings == ("dense/kernel holds NaN or infinite numbers; they were kept",)
