"""A PyTorch model of any format that can be called on arrays, by PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tiesurgeon.errors import CannotRun, MissingFramework, ProofFailed, UnsupportedFormat
from tiesurgeon.formats import WEIGHTS_ONLY
from tiesurgeon.graph import Array, Graph, Layer, values_in
from tiesurgeon.rooms.pytorch.read import read_as
from tiesurgeon.rooms.pytorch.run import SCRIPT, code_folders, is_installed
from tiesurgeon.running import Ran, Runnable, Wanted, Weights, rows_below
from tiesurgeon.subprocesses import ask

_CURE = "load it in your class, and save that whole: torch.save(model, 'model.pt')"
_UNTRUSTED = "{}: to be run, it needs {}; give --trust-code if you trust that code"
# What hands ids on, by the words of `exported.operators`.
_PASSING = frozenset(
    "Identity View Reshape To Clone Unsqueeze Squeeze Permute Transpose Slice Expand".split()
)


@dataclass(frozen=True)
class RunnableTorch:
    """A module, a program or a folder."""

    path: Path
    format: str
    wanted: tuple[Wanted, ...] | None
    trust_code: bool

    def run(self, inputs: Mapping[str, Array] | None, ids: frozenset[str]) -> Ran:
        """The outputs; those of a dict or a dataclass by its keys."""
        with TemporaryDirectory(prefix="tiesurgeon-run-") as place:
            given, got, used = (Path(place, f"{n}.npz") for n in ("inputs", "outputs", "used"))
            np.savez(given, *(inputs or {}).values())
            order = {
                "job": "outputs",
                "path": str(self.path.resolve()),
                "format": self.format,
                "trusted": self.trust_code,
                "folders": code_folders(self.path) if self.trust_code else [],
                "names": None if inputs is None else list(inputs),
                "ids": sorted(ids),
                "inputs": str(given),
                "outputs": str(got),
                "used": str(used),
            }
            try:
                told = ask(SCRIPT, order, Path(place))
            except ProofFailed as error:
                raise CannotRun(f"{self.path}: {error.__cause__ or error}") from None
            self._refuse_failure(told)
            outputs = tuple(zip(told["outputs"], _arrays(got), strict=True))
            taken = dict(zip(told["inputs"], _arrays(used), strict=True))
        missing = told["missing"]
        lacking = f"{self.path} lacks {', '.join(missing[:3])}: made up when it was loaded"
        return Ran(outputs, taken, told["words"], (lacking,) if missing else ())

    def _refuse_failure(self, told: Mapping[str, Any]) -> None:
        if "untrusted" in told:
            raise UnsupportedFormat(_UNTRUSTED.format(self.path, told["untrusted"]))
        if "unopened" in told:
            raise UnsupportedFormat(f"{self.path}: PyTorch cannot open it here: {told['unopened']}")
        if "no_inputs" in told:
            raise CannotRun(
                f"{self.path}: no inputs were found on which it runs ({told['no_inputs']}); "
                "give --inputs F.npz"
            )
        if "failed" in told:
            raise CannotRun(f"{self.path}: PyTorch says: {told['failed']}")


def open_runnable(path: Path, format: str, *, trust_code: bool) -> Runnable | Weights:
    """Opens a PyTorch file or a Hugging Face folder, without running anything of it."""
    found = read_as(path, format)
    if found.format in WEIGHTS_ONLY:
        return Weights(path, found.format, found.graph, _CURE)
    wanted = _wanted(found.graph) if found.format == "torch-export" else None
    return _runnable(path, found.format, wanted, found.classes, trust_code)


def open_folder(path: Path, *, trust_code: bool) -> Runnable:
    """A folder with `model.py`, as `convert --to torch` writes it: its code is Python."""
    return _runnable(path, "torch", None, ("the Python code in model.py",), trust_code)


def _runnable(
    path: Path,
    format: str,
    wanted: tuple[Wanted, ...] | None,
    classes: tuple[str, ...],
    trust_code: bool,
) -> RunnableTorch:
    if classes and not trust_code:
        raise UnsupportedFormat(_UNTRUSTED.format(path, classes[0]))
    for package in ["torch"] + ["transformers"] * (format == "huggingface"):
        if not is_installed(package):
            raise MissingFramework(
                f"{path} is run by {package}, which is not installed; pip install {package}"
            )
    return RunnableTorch(path, format, wanted, trust_code)


def _wanted(graph: Graph) -> tuple[Wanted, ...]:
    """Of an exported program, which tells shapes and dtypes."""
    return tuple(
        Wanted(
            layer.name,
            tuple(layer.config["shape"]),
            str(layer.config["dtype"]),
            rows_below(graph, value, _rows, _PASSING),
        )
        for value in values_in(graph.inputs)
        for layer in [graph.layer(value.call)]
    )


def _rows(layer: Layer) -> int | None:
    rows = layer.config.get("num_embeddings")
    return int(rows) if rows is not None else None


def _arrays(path: Path) -> list[Array]:
    with np.load(path) as held:
        return [held[key] for key in held.files]
