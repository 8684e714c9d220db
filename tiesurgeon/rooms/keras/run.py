"""The full proof: stock Keras, in a fresh process without tiesurgeon, judges what was written.

The *twin* is the model before the tie, with both matrices already set to the shared values
but still two variables. A tied model must give its outputs, the sum of its gradients, and
react to a poke exactly as the twin does when every copy is poked.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tiesurgeon.graph import Array, Graph, Layer, Variable
from tiesurgeon.rooms.keras.examples import example_inputs
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("proof_script.py")


def is_installed() -> bool:
    """True if Keras can be imported here (it is not imported to find out)."""
    has_backend = any(map(importlib.util.find_spec, ("tensorflow", "torch", "jax")))
    return importlib.util.find_spec("keras") is not None and has_backend


@dataclass(frozen=True)
class Spot:
    """A variable as Keras names it: layer names from the outside in, and its attribute."""

    path: tuple[str, ...]
    role: str
    perm: tuple[int, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """For the script."""
        return {"path": list(self.path), "role": self.role, "perm": self.perm}


def spots(graph: Graph) -> dict[Variable, list[Spot]]:
    """Every place from which each variable is seen."""
    found: dict[Variable, list[Spot]] = {}

    def visit(layer: Layer, path: tuple[str, ...]) -> None:
        here = (*path, layer.name)
        for view in layer.views:
            found.setdefault(view.variable, []).append(Spot(here, view.role, view.perm))
        for inner in layer.inner:
            visit(inner, here)
        for nested in layer.body.layers if layer.body is not None else ():
            visit(nested, here)

    for layer in graph.layers:
        visit(layer, ())
    return found


def judge(
    model: Path,
    written: Graph,
    *,
    original: Path | None = None,
    twin: Path | None = None,
    groups: Sequence[tuple[Spot, Sequence[Spot]]] = (),
) -> dict[str, Any]:
    """Runs the proof on a written file; returns what the script measured.

    `written` is the graph as it was written, `groups` pairs each shared variable's place in
    it with the places of its copies in the twin. Raises ProofFailed if Keras cannot run it.
    """
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as folder:
        inputs, weights = Path(folder, "inputs.npz"), Path(folder, "weights.npz")
        np.savez(inputs, **example_inputs(written))  # type: ignore[arg-type]
        np.savez(weights, **_expected(written))  # type: ignore[arg-type]
        spec = {
            "model": str(model.resolve()),
            "original": None if original is None else str(original.resolve()),
            "twin": None if twin is None else str(twin),
            "inputs": str(inputs),
            "weights": str(weights),
            "groups": [
                {**shared.as_json(), "members": [member.as_json() for member in members]}
                for shared, members in groups
            ],
        }
        return ask(SCRIPT, spec, Path(folder))


def _expected(graph: Graph) -> Mapping[str, Any]:
    """Values of a few hundred MB at most: enough to see whether loaders swapped layers."""
    found: dict[str, Any] = {}
    left = 1 << 28
    for variable, places in spots(graph).items():
        spot = places[0]
        if variable.storage.dtype.kind != "f" or "/" in spot.role or spot.role.isdigit():
            continue
        left -= variable.storage.nbytes
        if left < 0:
            break
        found["|".join((*spot.path, spot.role))] = variable.storage.load()
    return found


def outputs(model: Path, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    """What the file's own framework makes of `inputs`, flat; ProofFailed if it cannot."""
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as folder:
        given, got = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(given, **inputs)  # type: ignore[arg-type]
        spec = {"outputs_of": str(model.resolve()), "inputs": str(given), "outputs": str(got)}
        ask(SCRIPT, spec, Path(folder))
        with np.load(got) as arrays:
            return tuple(arrays[name] for name in arrays.files)
