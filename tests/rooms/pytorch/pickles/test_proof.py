"""What was tied is one parameter to plain PyTorch: in a fresh process, without tiesurgeon."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rooms.pytorch.pickles.files import (
    equal_autoencoder,
    equal_language_model,
    saved,
    tied,
)

LANGUAGE = ("embed.weight", "decoder.weight")
DENSE = ("encoder.weight", "decoder.weight")


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every kind of file, tied, and what `fresh.py` found of it."""
    folder = tmp_path_factory.mktemp("proof")
    language, dense = equal_language_model(), equal_autoencoder()
    saved(language.state_dict(), folder / "lm.sd")
    saved(dense.state_dict(), folder / "ae.sd")
    for word, legacy in (("", False), (" legacy", True)):
        path = saved(language, folder / f"lm{word}.pt", legacy=legacy)
        tied(path, *LANGUAGE, to=f"lm{word}.tied.pt")
        path = saved(dense, folder / f"ae{word}.pt", legacy=legacy)
        tied(path, *DENSE, (1, 0), to=f"ae{word}.tied.pt")
        path = saved(language.state_dict(), folder / f"sd{word}.pt", legacy=legacy)
        tied(path, *LANGUAGE, to=f"sd{word}.tied.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(language).save(str(folder / "ts.pt"))
    tied(folder / "ts.pt", *LANGUAGE, to="ts.tied.pt")
    script = Path(__file__).with_name("fresh.py")
    command = [sys.executable, str(script), str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    found: dict[str, Any] = json.loads(result.stdout)
    return found


KINDS = ("lm", "lm legacy", "ae", "ae legacy", "sd", "sd legacy", "ts")


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_one_parameter(kind: str, judged: dict[str, Any]) -> None:
    assert judged[kind]["same"]
    assert judged[kind]["poke"] == 123.0
    assert judged[kind]["count"] == (3 if kind.startswith("ae") else 6)


@pytest.mark.parametrize("kind", KINDS)
def test_five_adam_steps_are_those_of_a_model_tied_by_hand(
    kind: str, judged: dict[str, Any]
) -> None:
    assert judged[kind]["difference"] == 0.0
