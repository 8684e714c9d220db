import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tiesurgeon.errors import ProofFailed
from tiesurgeon.rooms.pytorch import export, run
from tiesurgeon.rooms.pytorch.stock import script


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's part of a proof in this process: a fresh one for each test would take minutes."""

    def ask(path: Path, order: Mapping[str, Any], folder: Path, **words: str) -> dict[str, Any]:
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(torch, "load", torch.load)  # which a proof without trust replaces
                patch.setattr(sys, "path", list(sys.path))
                return script.main(dict(order))
        except Exception as error:
            raise ProofFailed(f"could not be run ({error})") from error

    monkeypatch.setattr(run, "ask", ask)
    monkeypatch.setattr(export, "ask", ask)
