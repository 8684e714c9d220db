"""Lets PyTorch's exporter write a model as ONNX, in a fresh process."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from tiesurgeon.errors import MissingFramework, UnsupportedFormat
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
    traced: Traced,
    output: Path,
    *,
    opset: int = OPSET,
    external_data: bool = False,
    pokes: Path | None = None,
) -> dict[str, Path]:
    """Writes `output`; with `external_data` the weights beside it, as `<output>.data`.

    Into the folder `pokes` go files of what the model gives with other numbers in a tied
    parameter (see `poking.py`); they are returned by the parameter's name.
    Raises MissingFramework without PyTorch and its exporter's onnxscript, UnsupportedFormat for
    what ONNX cannot say and an opset that the exporter cannot write, ProofFailed with its last
    word where it fails.
    """
    for package in ("torch", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise MissingFramework(
                f"writing ONNX needs {package}, which is not installed; pip install "
                "'tiesurgeon[torch,onnx]'"
            )
    with TemporaryDirectory(prefix="tiesurgeon-export-") as place:
        given = Path(pokes or place, "inputs.npz")
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
            "poke": sorted(set(traced.owners.values())) if pokes is not None else [],
            "opset": opset,
            "output": str(output.resolve()),
            "external_data": external_data,
        }
        answer = ask(SCRIPT, spec, Path(place), what="the ONNX exporter")
    if "refused" in answer:
        raise UnsupportedFormat(f"--to onnx: {answer['refused']}; --to torch keeps it")
    if answer["opset"] != opset:  # it leaves what it cannot convert as it is, without a word
        raise UnsupportedFormat(
            f"--opset {opset}: PyTorch's exporter cannot write it for this model; without the "
            f"option it is {OPSET}"
        )
    return {name: Path(file) for name, file in answer["pokes"].items()}
