"""Edited programs in a fresh process that knows only PyTorch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rooms.pytorch.exported import judging
from tests.rooms.pytorch.exported.editing import edited
from tiesurgeon import find
from tiesurgeon.rooms.pytorch.exported import merge_aliases, read_exported

TIE = ("embed.weight", "decoder.weight", None)
TURN = ("encoder.weight", "decoder.weight", (1, 0))
TIED = {"tied": True}

# name: file, class, its options, ties, names untied
CASES: dict[str, tuple[str, str, dict[str, Any], tuple[Any, ...], tuple[str, ...]]] = {
    "straight": ("lm", "Lm", TIED, (TIE,), ()),
    "native": ("native", "Lm", TIED, (TIE,), ()),
    "signed": ("signed", "Lm", TIED, (TIE,), ()),
    "turned": ("auto", "Autoencoder", TIED, (TURN,), ()),
    "decomposed": ("core", "Autoencoder", TIED, (TURN,), ()),
    "attention": ("gpt", "Gpt", TIED, (("wte.weight", "head.weight", None),), ()),
    "three": (
        "three",
        "Three",
        TIED,
        (("one.weight", "two.weight", None), ("two.weight", "out.weight", None)),
        (),
    ),
    "undone": ("auto", "Autoencoder", {}, (TURN,), ("decoder.weight",)),
    "split": ("native", "Lm", {}, (), ("decoder.weight",)),
    "parted": ("strict", "Lm", {}, (), ("decoder.weight",)),
    "parted owner": ("strict", "Lm", {}, (), ("embed.weight",)),
    "function": ("functions", "Functions", {}, (), ("linear_2.weight",)),
}
MERGED = ("merged", "native")


@pytest.fixture(scope="module")
def written(exports: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    for name, (file, _, _, ties, untied) in CASES.items():
        edited(exports / f"{file}.pt2", folder / f"{name}.pt2", ties, untied)
    merge_aliases(exports / "native.pt2", folder / "merged.pt2")
    return folder


@pytest.fixture(scope="module")
def judgements(exports: Path, written: Path) -> dict[str, dict[str, Any]]:
    rows = {**CASES, "merged": ("native", "Lm", TIED, (), ())}
    cases = [
        {
            "kind": kind,
            "options": options,
            "original": str(exports / f"{file}.pt2"),
            "written": str(written / f"{name}.pt2"),
            "again": str(written / f"{name}_again.pt2"),
        }
        for name, (file, kind, options, _, _) in rows.items()
    ]
    command = [sys.executable, str(judging.__file__), json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=written)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(zip(rows, json.loads(done.stdout), strict=True))


every = pytest.mark.parametrize("name", [*CASES, "merged"])

# A tie changes the outputs: the hand-tied model has the source's numbers, as the file has.
COUNTS = {
    "straight": 6,
    "native": 6,
    "signed": 6,
    "turned": 3,
    "decomposed": 3,
    "attention": 16,
    "three": 2,
    "undone": 4,
    "split": 7,
    "parted": 7,
    "parted owner": 7,
    "function": 6,
    "merged": 6,
}


@every
def test_outputs_are_those_of_the_model_tied_by_hand(judgements, name: str) -> None:
    if name == "undone":
        pytest.skip("its decoder holds the encoder's numbers, which no original has")
    assert judgements[name]["difference"] == 0.0


@every
def test_each_tie_leaves_one_parameter(judgements, name: str) -> None:
    found = judgements[name]
    assert len(found["parameters"]) == COUNTS[name]
    assert found["unflattened_parameters"] == found["parameters"]


@every
def test_it_unflattens_to_the_same_outputs(judgements, name: str) -> None:
    assert judgements[name]["unflattened"] == 0.0


@pytest.mark.parametrize("name", [n for n in COUNTS if n not in ("undone", "function")])
def test_five_steps_train_it_as_the_model_tied_by_hand(judgements, name: str) -> None:
    found = judgements[name]
    tied_apart = {"split": 7, "parted": 7, "parted owner": 7}
    assert found["compared"] == tied_apart.get(name, COUNTS[name])
    assert found["steps"] == 0.0


@every
def test_ties_survive_when_pytorch_writes_it_again(judgements, written: Path, name: str) -> None:
    before = find.ties(read_exported(written / f"{name}.pt2").graph)
    after = find.ties(read_exported(written / f"{name}_again.pt2").graph)
    assert after == before
