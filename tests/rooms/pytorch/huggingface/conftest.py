"""Folders as stock transformers makes them; it takes seconds to start, so once for all tests."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STOCK = Path(__file__).parent / "stock.py"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of folders that `stock.py` describes."""
    folder = tmp_path_factory.mktemp("huggingface") / "made"
    subprocess.run([sys.executable, str(STOCK), "make", str(folder)], check=True)
    return folder


def found(task: str, *arguments: str | Path) -> dict[str, Any]:
    """What `stock.py` says, in an interpreter of its own that knows nothing of tiesurgeon."""
    command = [sys.executable, "-I", str(STOCK), task, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    [line] = [text for text in done.stdout.splitlines() if text.startswith("FOUND")]
    answer: dict[str, Any] = json.loads(line.removeprefix("FOUND"))
    return answer
