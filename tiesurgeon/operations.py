"""The verbs: straight-line functions that join the rooms. The command line only calls these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from tiesurgeon import __version__, crossing, edits, files, find, fit, formats, pairing
from tiesurgeon.errors import TieRefused, UnsupportedFormat
from tiesurgeon.graph import Array, Graph
from tiesurgeon.names import Spot
from tiesurgeon.outcome import MadeTie, Outcome, Proof
from tiesurgeon.rooms.keras import recipes, surgery
from tiesurgeon.rooms.keras.read import KerasFile, read

Level = Literal["static", "full"]


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
) -> Outcome:
    """Makes weights of a model one variable, proves it, and writes the result.

    `pairs` are (source, target) names as `inspect` prints them; `duplicates` ties every
    bit-equal pair that the format can express. Values that differ need a `method`
    (see `fit.METHODS`). Raises a TiesurgeonError, and leaves no output, where it fails.
    """
    output = output or files.tied_output(model)
    found = _keras(model, config)
    if not dry_run:
        files.refuse_output(output, force=force, inputs=[model])
    work = _Work(found.graph, method)
    if duplicates:
        work.tie_duplicates()
    for source, target in pairs:
        work.tie_named(source, target)
    if not work.ties:
        line = "no two matrices of this model are bit-equal and can be one: nothing to tie"
        return _nothing(model, found, line, tuple(work.warnings))
    surgery.expressible(work.graph)
    planned = Outcome(
        input=model,
        output=None,
        format=output.suffix.lstrip("."),
        ties=tuple(work.ties),
        parameters=(count(found.graph), count(work.graph)),
        bytes=(model.stat().st_size, model.stat().st_size),
        proof=Proof(),
        warnings=(*_words(found, output), *work.warnings),
        lines=tuple(work.lines),
    )
    if dry_run:
        return planned
    order = surgery.Order(
        before=work.untied,
        after=work.graph,
        original=model if config is None else None,
        provenance=_provenance(model, work.ties),
        training=found.training,
        written_by=found.writer,
        values_changed=work.values_changed,
    )
    with files.writing(output, force=force, inputs=[model]) as path:
        result = surgery.produce(order, path, full=proof == "full")
        size = path.stat().st_size
    return replace(
        planned,
        output=output,
        bytes=(model.stat().st_size, size),
        proof=result.proof,
        warnings=(*planned.warnings, *result.warnings),
        lines=(*planned.lines, *result.lines),
    )


def convert(
    model: Path,
    to: str,
    *,
    output: Path | None = None,
    proof: Level = "full",
    force: bool = False,
    config: Path | None = None,
) -> Outcome:
    """Writes a model in another format, with the ties that it has.

    `to` is "torch" (a folder with `model.py` and `model.safetensors`), "keras" or "h5".
    Raises a TiesurgeonError, and leaves no output, where it fails.
    """
    output = output or files.converted_output(model, to)
    files.refuse_output(output, force=force, inputs=[model])
    found = _keras(model, config)
    if to == "torch":
        result = crossing.keras_to_torch(
            found.graph, model, output, written_by=found.writer, full=proof == "full", force=force
        )
        size = (output / "model.safetensors").stat().st_size
        return _converted(model, found, output, to, result, size)
    if to not in ("keras", "h5"):
        raise UnsupportedFormat(f"--to {to}: this version writes torch, keras and h5")
    if output.suffix not in (f".{to}", ".hdf5"):
        raise UnsupportedFormat(f"-o {output}: --to {to} writes a file that ends in .{to}")
    order = surgery.Order(
        before=edits.untie(found.graph),  # what the proof of the ties compares with
        after=found.graph,
        original=model if config is None else None,
        provenance=_provenance(model, ()),
        training=found.training,
        written_by=found.writer,
    )
    with files.writing(output, force=force, inputs=[model]) as path:
        result = surgery.produce(order, path, full=proof == "full")
        size = path.stat().st_size
    return _converted(model, found, output, to, result, size)


@dataclass
class _Work:
    """A graph on its way to being tied. `untied` is the same model with nothing tied yet."""

    graph: Graph
    method: str | None
    ties: list[MadeTie] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    values_changed: bool = False

    def __post_init__(self) -> None:
        self.untied = self.graph

    def tie_named(self, source: str, target: str) -> None:
        """One `--pair`."""
        one, other = pairing.find_spots(self.graph, source, target)
        if other.view is None or recipes.is_recipe(other.layer):
            assert one.view is not None
            self.graph = recipes.as_dense(self.graph, other.path, one.view.variable)
            self.untied = recipes.as_dense(self.untied, other.path, one.view.variable)
            self.warnings.append(
                f"{other.path} ({other.layer.op}) was read as a Dense over the transposed "
                f"{one.variable}; its own code was not run, so compare the outputs yourself"
            )
            one, other = pairing.find_spots(self.graph, source, target)
        self._tie(self._turned(one, other))

    def _turned(self, one: Spot, other: Spot) -> pairing.Pair:
        assert one.view is not None
        assert other.view is not None
        closer = True
        if one.view.shape == other.view.shape == one.view.shape[::-1]:
            straight, turned = (
                find.compare(one.view, other.view, perm).relative_difference
                for perm in (None, pairing.TRANSPOSED)
            )
            closer = (turned or 0.0) <= (straight or 0.0)
        return pairing.pair(one, other, is_closer_transposed=closer)

    def _tie(self, pair: pairing.Pair) -> None:
        source, target = pair.views
        value = self._value(pair)
        self.graph = edits.tie(
            self.graph, source.variable, target.variable, pair.stored_perm, value
        )
        self.ties.append(MadeTie(pair.source.variable, pair.target.variable, pair.perm))

    def _value(self, pair: pairing.Pair) -> Array | None:
        """The shared matrix as the source stores it, or None where both are bit-equal."""
        source, target = pair.views
        alike = find.compare(source, target, pair.perm)
        if alike.match == "equal":
            return None
        measured = (
            f"{pair.source.variable!r} and {pair.target.variable!r} differ: relative difference "
            f"{alike.relative_difference:.3g}, cosine {alike.cosine:.3g}"
        )
        if self.method is None:
            raise TieRefused(
                f"{measured}; tying them changes the model, so choose --method "
                f"{', '.join(fit.METHODS[:-1])} or {fit.METHODS[-1]}"
            )
        self.values_changed = True
        self.lines.append(f"method      {self.method}: {measured}")
        back = edits.inverse(pair.perm)
        other = target.load() if back is None else target.load().transpose(back)
        seen = fit.fit(source.load(), other, self.method)
        stored = edits.inverse(source.perm)
        return np.ascontiguousarray(seen if stored is None else seen.transpose(stored))

    def tie_duplicates(self) -> None:
        """`--duplicates`: every bit-equal pair, those that cannot be expressed left with a word."""
        for source, target in find.duplicates(self.graph):
            before = self.graph, list(self.ties)
            try:
                self.tie_named(source, target)
                surgery.expressible(self.graph)
            except TieRefused as reason:
                self.graph, self.ties = before
                self.warnings.append(f"left as they are: {reason}")


def count(graph: Graph) -> int:
    """Parameters, each variable once."""
    return sum(variable.storage.size for variable in graph.variables())


def _keras(model: Path, config: Path | None) -> KerasFile:
    kind = formats.recognise(model)
    if kind.room != "keras":
        raise UnsupportedFormat(
            f"{model}: {kind.name}, which this version can recognise but not change"
        )
    found = read(model, config=config)
    if not found.graph.calls:
        if found.graph.op in ("", "Sequential"):
            raise UnsupportedFormat(
                f"{model}: holds weights but no graph; give the architecture with --config "
                "model.json (model.to_json())"
            )
        raise UnsupportedFormat(
            f"{model}: {found.graph.op} is a subclassed model, whose graph is Python code and "
            "not in the file; rebuild it with the functional API to change it"
        )
    return found


def _nothing(model: Path, found: KerasFile, line: str, warnings: tuple[str, ...]) -> Outcome:
    size, parameters = model.stat().st_size, count(found.graph)
    return Outcome(
        input=model,
        output=None,
        format=model.suffix.lstrip("."),
        ties=(),
        parameters=(parameters, parameters),
        bytes=(size, size),
        proof=Proof(),
        warnings=warnings,
        lines=(line,),
    )


def _words(found: KerasFile, output: Path) -> tuple[str, ...]:
    """What the file had and the output will not have."""
    if found.training is None or output.suffix not in surgery.SUFFIXES:
        return found.notes
    return (*found.notes, "the model was compiled and still is, but its optimizer starts afresh")


def _converted(
    model: Path, found: KerasFile, output: Path, to: str, result: surgery.Result, size: int
) -> Outcome:
    parameters = count(found.graph)
    return Outcome(
        input=model,
        output=output,
        format=to,
        ties=_present(found.graph),
        parameters=(parameters, parameters),
        bytes=(model.stat().st_size, size),
        proof=result.proof,
        warnings=(*_words(found, output), *result.warnings),
        lines=result.lines,
    )


def _present(graph: Graph) -> tuple[MadeTie, ...]:
    return tuple(MadeTie(t.source, t.target, t.perm, t.kind) for t in find.ties(graph))


def _provenance(model: Path, ties: Sequence[MadeTie]) -> dict[str, object]:
    return {
        "version": __version__,
        "source": model.name,
        "ties": [{"source": t.source, "target": t.target, "perm": t.perm} for t in ties],
    }
