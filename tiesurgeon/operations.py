"""The verbs: straight-line functions that join the rooms. The command line only calls these."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from tiesurgeon import __version__, conversion, files, find, formats
from tiesurgeon.errors import UnsupportedFormat
from tiesurgeon.graph import Graph
from tiesurgeon.model import Change, Model, Permissions, size_on_disk
from tiesurgeon.outcome import MadeTie, Outcome, Proof, Result
from tiesurgeon.planning import Plan

Level = Literal["static", "full"]
Head = Literal["gemm", "activation"]


def tie(
    model: Path,
    pairs: Sequence[tuple[str, str]] = (),
    *,
    duplicates: bool = False,
    output: Path | None = None,
    method: str | None = None,
    proof: Level = "full",
    dry_run: bool = False,
    force: bool = False,
    config: Path | None = None,
    trust_code: bool = False,
    example_inputs: Path | None = None,
    onnx_head: Head = "gemm",
) -> Outcome:
    """Makes weights of a model one variable, proves it, and writes the result.

    `pairs` are (source, target) names as `inspect` prints them; `duplicates` ties every
    bit-equal pair that the format can express. Values that differ need a `method`
    (see `fit.METHODS`). The result has the format of the model. `trust_code` lets the proof
    import the classes that a pickle names, `example_inputs` is an `.npz` to call the model on.
    Raises a TiesurgeonError, and leaves no output, where it fails.
    """
    output = output or files.tied_output(model)
    found = _open(model, Permissions(config, trust_code, example_inputs, onnx_head=onnx_head))
    found.refuse_output(output)
    if not dry_run:
        files.refuse_output(output, force=force, inputs=[model])
    plan = Plan(found, method)
    if duplicates:
        plan.tie_duplicates()
    plan.tie_pairs(pairs)
    if not plan.steps:
        line = "no two matrices of this model are bit-equal and can be one: nothing to tie"
        return _nothing(found, line, tuple(plan.warnings))
    return _changed(found, plan, output, plan.ties, proof=proof, dry_run=dry_run, force=force)


def untie(
    model: Path,
    pairs: Sequence[tuple[str, str]] = (),
    *,
    output: Path | None = None,
    proof: Level = "full",
    force: bool = False,
    config: Path | None = None,
    trust_code: bool = False,
    example_inputs: Path | None = None,
) -> Outcome:
    """Gives tied names weights of their own again, of equal values, and writes the result.

    `pairs` are (source, target) names of ties; without them all are undone. A layer that is
    called several times stays one layer. Raises a TiesurgeonError, and leaves no output,
    where it fails.
    """
    output = output or files.untied_output(model)
    found = _open(model, Permissions(config, trust_code, example_inputs))
    found.refuse_output(output)
    files.refuse_output(output, force=force, inputs=[model])
    plan = Plan(found)
    plan.untie(pairs)
    if not plan.untied:
        return _nothing(found, "nothing in this model is tied: nothing to untie", ())
    return _changed(found, plan, output, _present(plan.graph), proof=proof, force=force)


def convert(
    model: Path,
    to: str,
    *,
    output: Path | None = None,
    proof: Level = "full",
    force: bool = False,
    config: Path | None = None,
    trust_code: bool = False,
    example_inputs: Path | None = None,
    opset: int | None = None,
    onnx_head: Head = "gemm",
) -> Outcome:
    """Writes a model in another format, with the ties that it has.

    `to` is one of `conversion.FORMATS`; `opset` and `onnx_head` are for ONNX, see
    `model.Permissions`. Raises a TiesurgeonError, and leaves no output, where
    it fails.
    """
    output = output or files.converted_output(model, to)
    files.refuse_output(output, force=force, inputs=[model])
    permissions = Permissions(config, trust_code, example_inputs, opset, onnx_head)
    kind, found = _recognised(model, permissions)
    converter = conversion.find(kind.room, to, model)
    converter.refuse_output(output)
    with _writing(output, force, model, folder=converter.writes_folder) as path:
        result = converter.write(found, path, permissions, proof == "full")
        size = size_on_disk(path)
    parameters = found.graph.size()
    return Outcome(
        input=model,
        output=output,
        format=to,
        ties=_present(found.graph),
        parameters=(parameters, parameters),
        bytes=(size_on_disk(model), size),
        proof=result.proof,
        warnings=(*found.words(output), *result.warnings),
        lines=result.lines,
    )


def _open(model: Path, permissions: Permissions) -> Model:
    found = _recognised(model, permissions)[1]
    found.refuse_unchangeable()
    return found


def _recognised(model: Path, permissions: Permissions) -> tuple[formats.Format, Model]:
    kind = formats.recognise(model)
    if kind.room is None:
        raise UnsupportedFormat(
            f"{model}: {kind.name}, which this version can recognise but not change"
        )
    room = importlib.import_module(f"tiesurgeon.rooms.{kind.room}.model")
    found: Model = room.open_model(model, kind.name, permissions)
    return kind, found


def _changed(
    found: Model,
    plan: Plan,
    output: Path,
    ties: tuple[MadeTie, ...],
    *,
    proof: Level,
    force: bool,
    dry_run: bool = False,
) -> Outcome:
    before = size_on_disk(found.path)
    planned = Outcome(
        input=found.path,
        output=None,
        format=found.written_format(output),
        ties=ties,
        parameters=(plan.before.size(), plan.graph.size()),
        bytes=(before, before),
        proof=Proof(),
        warnings=(*found.words(output), *plan.warnings),
        lines=tuple(plan.lines),
        untied=tuple(plan.untied),
    )
    if dry_run:
        return planned
    change = Change(
        before=plan.before,
        after=plan.graph,
        provenance=provenance(found.path, ties),
        steps=tuple(plan.steps),
        values_changed=plan.values_changed,
    )
    with _writing(output, force, found.path, folder=found.writes_folder) as path:
        result: Result = found.write(change, path, full=proof == "full")
        size = size_on_disk(path)
    return replace(
        planned,
        output=output,
        bytes=(before, size),
        proof=result.proof,
        warnings=(*planned.warnings, *result.warnings),
        lines=(*planned.lines, *result.lines),
    )


def _writing(
    output: Path, force: bool, model: Path, *, folder: bool
) -> AbstractContextManager[Path]:
    write = files.writing_folder if folder else files.writing
    return write(output, force=force, inputs=[model])


def _nothing(found: Model, line: str, warnings: tuple[str, ...]) -> Outcome:
    size, parameters = size_on_disk(found.path), found.graph.size()
    return Outcome(
        input=found.path,
        output=None,
        format=found.format,
        ties=(),
        parameters=(parameters, parameters),
        bytes=(size, size),
        proof=Proof(),
        warnings=warnings,
        lines=(line,),
    )


def _present(graph: Graph) -> tuple[MadeTie, ...]:
    """What is shared; not the variables of a model that merely lie on one storage."""
    found = (tie for tie in find.ties(graph) if tie.kind == "tie" or graph.is_bare)
    return tuple(MadeTie(tie.source, tie.target, tie.perm, tie.kind) for tie in found)


def provenance(model: Path, ties: Sequence[MadeTie]) -> dict[str, object]:
    """Where an output came from: the version, the source's name, the ties that were made."""
    return {
        "version": __version__,
        "source": model.name,
        "ties": [{"source": t.source, "target": t.target, "perm": t.perm} for t in ties],
    }
