"""A module becomes a `.pt2` program: PyTorch traces it in a process of its own.

PyTorch writes a tied parameter under each of its names, and loads it as several parameters;
so what it wrote is written anew with each tied parameter once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiesurgeon.errors import MissingFramework, ProofFailed, UnsupportedFormat
from tiesurgeon.find.values import bits_equal
from tiesurgeon.graph import Graph
from tiesurgeon.model import Permissions
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.pytorch.check import tensors
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.rooms.pytorch.read import read_as
from tiesurgeon.rooms.pytorch.run import (
    SCRIPT,
    Subject,
    code_folders,
    is_installed,
    judge,
    ties,
)
from tiesurgeon.subprocesses import ask

_CURES = {
    "torchscript": "torch.export traces Python modules, and TorchScript is none any more; export "
    "the module that it was made from (tie and untie work on TorchScript as it is)",
    "torch-state-dict": "it holds weights without a module, and there is nothing to trace; load "
    "them into their class and save the whole module",
    "torch-checkpoint": "it holds weights without a module that could be traced; load them into "
    "their class and save the whole module",
    "safetensors": "it holds weights without a module, and there is nothing to trace; load them "
    "into their class and save the whole module",
}


def export(
    found: TorchFile,
    model: Path,
    output: Path,
    permissions: Permissions,
    provenance: Mapping[str, Any],
    *,
    full: bool,
) -> Result:
    """Writes a whole module or a Hugging Face folder as a `.pt2`, and proves it.

    Raises UnsupportedFormat, with what to do, for what cannot be traced, MissingFramework
    without PyTorch, and ProofFailed where the program is not what the module is.
    """
    if cure := _CURES.get(found.format):
        raise UnsupportedFormat(f"{model}: {cure}")
    if found.classes and not permissions.trust_code:
        raise UnsupportedFormat(
            f"{model}: exporting it runs the class {found.classes[0]}; give --trust-code"
        )
    subject = Subject(model, found.format, found.classes)
    return export_subject(subject, found.graph, output, permissions, provenance, full=full)


def export_subject(
    subject: Subject,
    graph: Graph,
    output: Path,
    permissions: Permissions,
    provenance: Mapping[str, Any],
    *,
    full: bool,
) -> Result:
    """The same for anything that a process of PyTorch can open, and whose graph is known."""
    from tiesurgeon.rooms.pytorch.exported.merge import merge_aliases

    _refuse_missing(subject)
    given = permissions.example_inputs
    with TemporaryDirectory(prefix="tiesurgeon-export-", dir=output.parent.resolve()) as folder:
        traced = Path(folder, "traced.pt2")
        order = {
            "job": "export",
            **subject.as_json(),
            "output": str(traced.resolve()),
            "trusted": permissions.trust_code,
            "folders": code_folders(subject.path) if permissions.trust_code else [],
            "example_inputs": None if given is None else str(given.resolve()),
        }
        answer = ask(SCRIPT, order, Path(folder), what="the model")
        if "refused" in answer:
            raise UnsupportedFormat(f"{subject.path}: {answer['refused']}")
        merge_aliases(traced, output, provenance)
    _refuse_other_numbers(graph, output)
    result = Result(Proof(reread=True), tuple(_warnings(answer)), tuple(_lines(answer)))
    if not full:
        return result
    proved = judge(
        Subject(output, "torch-export"),
        subject,
        ties(graph),
        trust_code=permissions.trust_code,
        example_inputs=given,
    )
    warnings, lines = (*result.warnings, *proved.warnings), (*result.lines, *proved.lines)
    return replace(proved, warnings=warnings, lines=tuple(dict.fromkeys(lines)))


def _refuse_other_numbers(meant: Graph, output: Path) -> None:
    """The static proof: what both know by one name is the same, and tied in the same way."""
    old, new = tensors(meant), tensors(read_as(output, "torch-export").graph)
    for name in old.keys() & new.keys():
        if not bits_equal(old[name].load(), new[name].load()):
            raise ProofFailed(f"{output.name}: read again, {name} holds other numbers")
    for source, target, _ in ties(meant):
        one, other = new.get(source), new.get(target)
        if one is not None and other is not None and one.variable is not other.variable:
            raise ProofFailed(f"{output.name}: read again, {target} is not tied to {source}")


def _refuse_missing(subject: Subject) -> None:
    needed = ["torch", "transformers"] if subject.format == "huggingface" else ["torch"]
    for package in needed:
        if not is_installed(package):
            raise MissingFramework(
                f"--to pt2 lets PyTorch trace the model, and {package} is not installed here; "
                f"pip install {package}"
            )


def _warnings(answer: Mapping[str, Any]) -> list[str]:
    words = []
    if answer["logits_only"]:
        words.append("the program gives the logits alone, without transformers' other outputs")
    reason = f" ({answer['fixed_by']})" if answer["fixed_by"] else ""
    words += [
        f"the program takes no other {size} than that of its example inputs{reason}"
        for size in answer["fixed"]
    ]
    return words


def _lines(answer: Mapping[str, Any]) -> list[str]:
    shapes = [
        f"{name} ({', '.join('any' if size is None else str(size) for size in sizes)})"
        for name, sizes in answer["sizes"]
    ]
    return [f"inputs      {answer['inputs']}", f"sizes       {'; '.join(shapes)}"]
