"""The full proof of a PyTorch folder: loaded and run by torch, in a fresh process."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from tiesurgeon.graph import Array
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("proof_script.py")


def is_installed() -> bool:
    """True if torch can be imported here (it is not imported to find out)."""
    try:
        return importlib.util.find_spec("torch") is not None
    except ImportError:  # something on the path forbids it
        return False


@dataclass(frozen=True)
class Run:
    """What the module gave, and whether its ties held."""

    outputs: tuple[Array, ...]
    poke: bool | None
    step: bool | None


def run(folder: Path, inputs: Mapping[str, Array], ties: Sequence[Sequence[str]]) -> Run:
    """Loads `folder/model.py` and calls the module on `inputs`, in their order.

    `ties` lists the parameter names that must be one Parameter. Raises ProofFailed where
    the module cannot be loaded or called.
    """
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as place:
        given, got = Path(place, "inputs.npz"), Path(place, "outputs.npz")
        np.savez(given, **inputs)  # type: ignore[arg-type]
        spec = {
            "folder": str(folder.resolve()),
            "inputs": str(given),
            "order": list(inputs),
            "outputs": str(got),
            "ties": [list(names) for names in ties],
        }
        found = ask(SCRIPT, spec, Path(place))
        with np.load(got) as arrays:
            outputs = tuple(arrays[name] for name in arrays.files)
    return Run(outputs, found["poke"], found["step"])
