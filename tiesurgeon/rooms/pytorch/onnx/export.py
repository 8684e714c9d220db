"""Lets PyTorch's exporter write a model as ONNX, in a fresh process."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from tiesurgeon.errors import MissingFramework
from tiesurgeon.graph import Array
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("export_script.py")
OPSET = 18  # the exporter's own; others are converted from it


@dataclass(frozen=True)
class Traced:
    """What is to be traced: a folder with `model.py`, or an exported program.

    `inputs` are examples, in the order of the model's parameters; `dynamic` lists for each the
    axes whose length may differ; a program says both itself, with `dynamic` None. `owners` maps
    the further names of a tied parameter to the one that it is to have.
    """

    kind: Literal["folder", "torch-export"]
    path: Path
    inputs: Mapping[str, Array] = field(default_factory=dict)
    dynamic: Sequence[Sequence[int]] | None = None
    input_names: Sequence[str] = ()
    output_names: Sequence[str] = ()
    owners: Mapping[str, str] = field(default_factory=dict)


def export(
    traced: Traced, output: Path, *, opset: int = OPSET, external_data: bool = False
) -> None:
    """Writes `output`; with `external_data` the weights beside it, as `<output>.data`.

    Raises MissingFramework without PyTorch and its exporter's onnxscript, ProofFailed with the
    exporter's last word where it fails.
    """
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingFramework(
                f"writing ONNX needs {package}, which is not installed; pip install "
                "'tiesurgeon[torch,onnx]'"
            )
    with TemporaryDirectory(prefix="tiesurgeon-export-") as place:
        given = Path(place, "inputs.npz")
        np.savez(given, **traced.inputs)  # type: ignore[arg-type]
        spec = {
            "kind": traced.kind,
            "path": str(traced.path.resolve()),
            "inputs": str(given),
            "order": list(traced.inputs),
            "dynamic": traced.dynamic,
            "input_names": list(traced.input_names),
            "output_names": list(traced.output_names),
            "names": dict(traced.owners),
            "opset": opset,
            "output": str(output.resolve()),
            "external_data": external_data,
        }
        ask(SCRIPT, spec, Path(place))
