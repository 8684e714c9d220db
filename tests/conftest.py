"""What many tests need: the sample models, and Pythons in which something cannot be imported."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

# Before TensorFlow is imported anywhere, here or in a child process.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

ROOT = Path(__file__).parent.parent
FRAMEWORKS = ("tensorflow", "keras", "tf_keras", "torch", "onnxruntime", "jax")

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked in this test")
sys.meta_path.insert(0, Block())
"""

Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of committed models."""
    return ROOT / "sample_models"


@pytest.fixture(scope="session")
def python_without() -> Python:
    """`python_without(names, code, *args, cwd=...)` runs code where names cannot be imported."""

    def run(
        names: Iterable[str], code: str, *args: str | Path, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        program = BLOCK.format(blocked=set(names)) + code
        command = [sys.executable, "-c", program, *map(str, args)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)

    return run


@pytest.fixture(scope="session")
def python_without_frameworks(python_without: Python) -> Python:
    """`python_without_frameworks(code, *args)`: no TensorFlow, Keras, PyTorch, ONNX Runtime."""
    return lambda code, *args, **options: python_without(FRAMEWORKS, code, *args, **options)


@pytest.fixture
def proof_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras' part of a proof in this process: a fresh one for each test would take minutes."""
    from tiesurgeon.errors import ProofFailed
    from tiesurgeon.rooms.keras import proof_script, run

    def ask(script: Path, spec: dict[str, Any], folder: Path) -> dict[str, Any]:
        try:
            return proof_script.main(spec)
        except Exception as error:
            raise ProofFailed(f"what was written could not be run ({error})") from error

    monkeypatch.setattr(run, "ask", ask)
