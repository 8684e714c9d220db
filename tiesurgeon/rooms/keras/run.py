"""The full proof: stock Keras, in a fresh process without tiesurgeon, judges what was written.

The *twin* is the model before the tie, with both matrices already set to the shared values
but still two variables. A tied model must give its outputs, the sum of its gradients, and
react to a poke exactly as the twin does when every copy is poked.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tiesurgeon.errors import ProofFailed
from tiesurgeon.graph import Array, Graph, Layer, Variable
from tiesurgeon.rooms.keras.examples import example_inputs
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("proof_script.py")


def is_installed() -> bool:
    """True if Keras can be imported here (it is not imported to find out)."""
    return _found("keras") and any(map(_found, ("tensorflow", "torch", "jax")))


def _found(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:  # something on the path forbids it
        return False


@dataclass(frozen=True)
class Spot:
    """A variable as Keras names it: layer names from the outside in, and its attribute."""

    path: tuple[str, ...]
    role: str
    perm: tuple[int, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """For the script."""
        return {"path": list(self.path), "role": self.role, "perm": self.perm}


def writer(graph: Graph, written_by: str) -> str:
    """Which Keras can say what a file meant: "keras 3", "keras 2" or "keras 2 only"."""
    if written_by.removeprefix("keras ").startswith("3"):
        return "keras 3"
    changed = any(layer.entry.get("dialect") for _, layer in graph.walk())
    return "keras 2 only" if changed else "keras 2"


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
    run_original: Callable[[Mapping[str, Array]], Sequence[Array]] | None = None,
    written_by: str = "keras 3",
    modern: Path | None = None,
    twin: Path | None = None,
    groups: Sequence[tuple[Spot, Sequence[Spot]]] = (),
) -> dict[str, Any]:
    """Runs the proof on a written file; returns what the script measured.

    `written` is the graph as it was written; `modern` stands in for an `original` that no
    Keras here opens, or over which `run_original` raises ProofFailed. `twin` is the model before
    the tie; `groups` pairs each shared variable's place in the graph with the places of its
    copies in the twin. Raises ProofFailed if Keras cannot run it.
    """
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as folder:
        inputs, weights = Path(folder, "inputs.npz"), Path(folder, "weights.npz")
        given = example_inputs(written)
        np.savez(inputs, **given)  # type: ignore[arg-type]
        np.savez(weights, **_expected(written))
        spec = {
            "model": str(model.resolve()),
            "original": None if original is None else str(original.resolve()),
            **_before(run_original, given, Path(folder, "before.npz")),
            "written_by": written_by,
            "modern": None if modern is None else str(modern),
            "twin": None if twin is None else str(twin),
            "inputs": str(inputs),
            "weights": str(weights),
            "groups": [
                {**shared.as_json(), "members": [member.as_json() for member in members]}
                for shared, members in groups
            ],
        }
        return ask(SCRIPT, spec, Path(folder))


def _before(
    run_original: Callable[[Mapping[str, Array]], Sequence[Array]] | None,
    inputs: Mapping[str, Array],
    place: Path,
) -> dict[str, str]:
    """Outputs of a source that is no Keras file, put where the script finds them."""
    if run_original is None:
        return {}
    try:
        np.savez(place, *run_original(inputs))
    except ProofFailed as error:
        return {"original_error": str(error)}
    return {"before": str(place)}


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


def outputs(model: Path, inputs: Mapping[str, Array], written_by: str) -> tuple[Array, ...]:
    """What the file's own framework makes of `inputs`, flat; ProofFailed if it cannot."""
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as folder:
        given, got = Path(folder, "inputs.npz"), Path(folder, "outputs.npz")
        np.savez(given, **inputs)  # type: ignore[arg-type]
        spec = {
            "outputs_of": str(model.resolve()),
            "written_by": written_by,
            "inputs": str(given),
            "outputs": str(got),
        }
        ask(SCRIPT, spec, Path(folder))
        with np.load(got) as arrays:
            return tuple(arrays[name] for name in arrays.files)
