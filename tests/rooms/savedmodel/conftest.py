"""What the tests of this room share: SavedModels of Keras 2, and TensorFlow's part done here."""

import contextlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.rooms.keras.stock import randomised
from tests.rooms.savedmodel import models
from tiesurgeon.errors import ProofFailed
from tiesurgeon.rooms.savedmodel import export_script, proof_script, run

# Frameworks speak to themselves while they start: their warnings are not ours.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    with contextlib.suppress(ImportError):
        import tf_keras  # noqa: F401

Saved = Callable[[str], Path]


@pytest.fixture(scope="session")
def keras2(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """`keras2("name")`: a model of `models.KERAS_2`, saved with `name.h5` beside it, once."""
    folder = tmp_path_factory.mktemp("keras2")

    def get(name: str) -> Path:
        path = folder / name
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = randomised(models.KERAS_2[name]())
                made.save(path, save_format="tf")
                if name not in models.NOT_IN_H5:
                    made.save(path.with_suffix(".h5"))
        return path

    return get


@pytest.fixture
def copied(keras2: Saved, tmp_path: Path) -> Saved:
    """`copied("name")`: the same in a folder that the test may damage."""
    return lambda name: Path(shutil.copytree(keras2(name), tmp_path / name))


@pytest.fixture
def tensorflow_here(proof_here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts in this process: a fresh one for each test would take minutes."""

    def ask(script: Path, spec: dict[str, Any], folder: Path) -> dict[str, Any]:
        main = export_script.main if script == run.EXPORT_SCRIPT else proof_script.main
        try:
            return main(spec)
        except Exception as error:
            raise ProofFailed(f"what was written could not be run ({error})") from error

    monkeypatch.setattr(run, "ask", ask)
    # The export replaces it; this puts it back.
    distributed = keras.layers.TimeDistributed
    monkeypatch.setattr(distributed, "call", distributed.call)
