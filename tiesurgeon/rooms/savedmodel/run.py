"""TensorFlow itself, in a fresh process: it writes a SavedModel, runs one, and judges one."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tiesurgeon.errors import MissingFramework, ProofFailed, UnsupportedFormat
from tiesurgeon.graph import Array, Graph, Value
from tiesurgeon.rooms.keras.examples import example_inputs
from tiesurgeon.subprocesses import ask

EXPORT_SCRIPT = Path(__file__).with_name("export_script.py")
PROOF_SCRIPT = Path(__file__).with_name("proof_script.py")

Names = Mapping[str, Sequence[str]]


def refuse_missing() -> None:
    """MissingFramework unless TensorFlow and Keras are here (they are not imported to find out)."""
    for package in ("tensorflow", "keras"):
        try:
            found = importlib.util.find_spec(package)
        except ImportError:  # something on the path forbids it
            found = None
        if found is None:
            raise MissingFramework(
                f"a SavedModel is written by TensorFlow, and {package} is not installed here; "
                'pip install "tiesurgeon[keras]"'
            )


def export(model: Path, folder: Path, names: Names) -> None:
    """Writes the SavedModel of a `.keras` file; UnsupportedFormat where TensorFlow cannot.

    `names` are those of the weights of each top-level layer, in Keras' order.
    """
    refuse_missing()
    with TemporaryDirectory(prefix="tiesurgeon-export-") as place:
        spec = {"model": str(model.resolve()), "folder": str(folder.resolve()), "names": names}
        told = ask(EXPORT_SCRIPT, spec, Path(place))
    if "error" in told:
        raise UnsupportedFormat(f"TensorFlow cannot save this model ({told['error']})")


def outputs(folder: Path, graph: Graph, inputs: Mapping[str, Array]) -> tuple[Array, ...]:
    """What a SavedModel makes of `inputs`, flat; `graph` is what was read from it.

    Raises ProofFailed where TensorFlow cannot run it, and where it holds operations that reach
    beyond the model (files, Python, the network), as these would be run.
    """
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as place:
        got = Path(place, "outputs.npz")
        spec = {**_common(folder, graph, inputs, Path(place)), "outputs": str(got)}
        _asked(spec, Path(place))
        with np.load(got) as arrays:
            return tuple(arrays[name] for name in arrays.files)


def judge(
    folder: Path, model: Path, graph: Graph, names: Names, tied: Sequence[str]
) -> dict[str, Any]:
    """Runs the proof of a SavedModel against the `.keras` file it was made of.

    `graph` is that file's; `tied` are the names of variables with several uses.
    """
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as place:
        spec = {
            **_common(folder, graph, example_inputs(graph), Path(place)),
            "model": str(model.resolve()),
            "names": names,
            "tied": list(tied),
        }
        return _asked(spec, Path(place))


def _common(folder: Path, graph: Graph, inputs: Mapping[str, Array], place: Path) -> dict[str, Any]:
    given = place / "inputs.npz"
    np.savez(given, **inputs)  # type: ignore[arg-type]
    structure = _named(graph, graph.inputs)
    return {"folder": str(folder.resolve()), "inputs": str(given), "structure": structure}


def _named(graph: Graph, structure: Any) -> Any:
    """The structure of the inputs, with the names of their layers in it."""
    if isinstance(structure, Value):
        return graph.call_by_id[structure.call].layer
    if isinstance(structure, Mapping):
        return {key: _named(graph, item) for key, item in structure.items()}
    return [_named(graph, item) for item in structure]


def _asked(spec: Mapping[str, Any], place: Path) -> dict[str, Any]:
    found = ask(PROOF_SCRIPT, spec, place)
    if "refused" in found:
        raise ProofFailed(
            f"the SavedModel was not run, as its graph reaches beyond it ({found['refused'][0]})"
        )
    return found
