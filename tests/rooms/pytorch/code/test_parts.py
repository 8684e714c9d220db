"""The parts: copied whole, with what they use, and good torch code by themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tiesurgeon.rooms.pytorch.code import copying
from tiesurgeon.rooms.pytorch.code.parts.masked import run_masked
from tiesurgeon.rooms.pytorch.code.parts.regularization import SharedDropout

EVERY = sorted(copying._all_parts())


@pytest.mark.parametrize("name", EVERY)
def test_a_part_stands_on_its_own(name: str, tmp_path: Path) -> None:
    parts = copying.needed([name])
    assert parts[-1].name == name
    imports = sorted({line for part in parts for line in part.imports})
    source = "\n".join((*imports, *(part.text for part in parts))) + "\n"
    compile(source, name, "exec")
    path = tmp_path / "part.py"
    path.write_text(source)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--isolated", "--select", "F"]
    found = subprocess.run([*command, str(path)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_what_a_part_uses_comes_before_it() -> None:
    names = [part.name for part in copying.needed(["run_masked", "StepwiseGRU"])]
    assert names.index("keep_initial") < names.index("run_masked")
    assert names.index("run_steps") < names.index("StepwiseGRU")
    assert len(names) == len(set(names))


def test_masked_steps_leave_no_trace_in_the_gradient() -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(2, 3, batch_first=True)
    x = torch.randn(2, 5, 2, requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    output, (h, _) = run_masked(lstm, x, mask)
    (output.sum() + h.sum()).backward()
    assert x.grad is not None
    assert torch.equal(x.grad.abs().sum(-1) > 0, mask)


def test_shared_dropout_drops_the_same_features_at_every_step() -> None:
    torch.manual_seed(0)
    dropout = SharedDropout(0.5, shared=(1,))
    kept = dropout(torch.ones(3, 7, 11)) != 0
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert 0 < kept.float().mean() < 1
    assert torch.equal(dropout.eval()(torch.ones(3, 7, 11)), torch.ones(3, 7, 11))
