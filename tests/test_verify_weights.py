"""Two files of weights alone are compared tensor by tensor; beside a model they are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.numpy import save_file

from tests import verified
from tests.verified import BIAS, HEAD, TABLE
from tiesurgeon import cli
from tiesurgeon.errors import ShapeMismatch, UnsupportedFormat
from tiesurgeon.verification import verify

TENSORS = {"0.weight": TABLE, "1.weight": HEAD, "1.bias": BIAS}


def test_weights_are_compared_by_name(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    torch.save(verified.module().state_dict(), tmp_path / "w.pt")
    found = verify(tmp_path / "w.safetensors", tmp_path / "w.pt")
    assert (found.equal, found.compared) == (True, "weights")
    assert {one.name: one.same_bits for one in found.differences} == dict.fromkeys(TENSORS, True)
    assert "nothing was run" in found.warnings[0]


def test_weights_that_differ(tmp_path: Path) -> None:
    other = HEAD.copy()
    other[7, 2] -= 3
    save_file(TENSORS, tmp_path / "a.safetensors")
    save_file({**TENSORS, "1.weight": other}, tmp_path / "b.safetensors")
    found = verify(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert (found.equal, found.worst.name, found.worst.index) == (False, "1.weight", (7, 2))


def test_a_missing_weight_is_a_difference(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    save_file({"0.weight": TABLE, "1.weight": HEAD}, tmp_path / "b.safetensors")
    for pair in (("a", "b"), ("b", "a")):
        found = verify(*(tmp_path / f"{name}.safetensors" for name in pair))
        assert not found.equal
        assert found.missing == (f"1.bias is not in {tmp_path / 'b.safetensors'}",)


def test_a_second_name_is_not_missing(tmp_path: Path) -> None:
    tied = torch.from_numpy(TABLE)
    torch.save({"0.weight": tied, "1.weight": tied}, tmp_path / "two.pt")
    save_file({"0.weight": TABLE}, tmp_path / "one.safetensors")
    found = verify(tmp_path / "two.pt", tmp_path / "one.safetensors")
    assert found.equal
    assert any(line.startswith("1.weight is a second name") for line in found.warnings)


def test_weights_without_a_common_name_are_refused(tmp_path: Path) -> None:
    verified.functional().save_weights(tmp_path / "k.weights.h5")
    save_file(TENSORS, tmp_path / "w.safetensors")
    with pytest.raises(ShapeMismatch, match="no weight of the same name"):
        verify(tmp_path / "k.weights.h5", tmp_path / "w.safetensors")


def test_weights_beside_a_model_are_refused(tmp_path: Path) -> None:
    verified.functional().save(tmp_path / "lm.keras")
    save_file(TENSORS, tmp_path / "w.safetensors")
    verified.functional().save_weights(tmp_path / "k.weights.h5")
    for name, cure in (("w.safetensors", "save that whole"), ("k.weights.h5", "--config")):
        with pytest.raises(UnsupportedFormat, match=f"{name} holds weights alone .*{cure}"):
            verify(tmp_path / "lm.keras", tmp_path / name)


def run(*args: Any) -> Result:
    return CliRunner().invoke(cli.main, ["verify", *map(str, args)], prog_name="tiesurgeon")


def test_weights_are_told_in_few_lines(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    save_file({**TENSORS, "1.bias": BIAS + 1}, tmp_path / "b.safetensors")
    result = run(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert result.exit_code == 1
    assert "weights     2 of 3 equal bit by bit\nweight      1.bias  (11)" in result.stdout
    assert "Error: weights differ by 1, expected" in result.stderr


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    save_file({"0.weight": TABLE}, tmp_path / "b.safetensors")
    result = run(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert result.exit_code == 1
    assert "is not in" in result.stderr.splitlines()[-1]
    assert result.stderr.splitlines()[-1].endswith(" and 1 more")
