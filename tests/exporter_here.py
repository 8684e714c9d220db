"""PyTorch's ONNX exporter in this process: a fresh one for each export would take minutes."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from tiesurgeon.errors import ProofFailed
from tiesurgeon.rooms.pytorch.onnx import export, export_script


def export_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on `export` runs its script by calling it."""
    monkeypatch.setattr(export, "ask", _ask)


def _ask(script: Path, spec: dict[str, Any], folder: Path, *, what: str) -> dict[str, Any]:
    sys.modules.pop("model", None)  # of the export before
    importlib.invalidate_caches()
    before = list(sys.path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return export_script.main(spec)
    except Exception as error:
        raise ProofFailed(f"{what} could not be run ({error})") from error
    finally:
        sys.path[:] = before
