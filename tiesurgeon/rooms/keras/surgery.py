"""Writes a graph as a Keras file and proves what was written, before anybody sees it.

Static proof: the file is read again and holds, under every layer, the numbers and the
wiring that were meant. Full proof: `run.judge` lets stock Keras load, run and train it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiesurgeon.edits import compose, inverse
from tiesurgeon.errors import ProofFailed, UnsupportedFormat
from tiesurgeon.graph import Array, Graph, Storage, Variable, View, map_views
from tiesurgeon.mapping.keras_operations import is_operation
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.keras import run
from tiesurgeon.rooms.keras.config import serialise
from tiesurgeon.rooms.keras.dialects import modernise
from tiesurgeon.rooms.keras.hard_sigmoid import in_keras_3
from tiesurgeon.rooms.keras.read import read_literally
from tiesurgeon.rooms.keras.tied import realise
from tiesurgeon.rooms.keras.write import as_seen, ordered, write_h5, write_keras

SUFFIXES = (".keras", ".h5", ".hdf5")
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Order:
    """What is to be written: `before` as it was read, `after` as it is to be.

    `original` is a file that Keras may open, to compare with; `run_original` is for one that
    another framework runs: it gives the outputs for inputs by name, flat.
    """

    before: Graph
    after: Graph
    original: Path | None
    provenance: Mapping[str, Any]
    training: Mapping[str, Any] | None = None
    written_by: str = "keras 3"
    values_changed: bool = False
    run_original: Callable[[Mapping[str, Array]], Sequence[Array]] | None = None


def expressible(graph: Graph) -> Graph:
    """The graph in layers that stock Keras has; TieRefused where that cannot be."""
    return ordered(realise(in_keras_3(graph)))


def produce(order: Order, path: Path, *, full: bool) -> Result:
    """Writes `order.after` to `path` and proves it.

    Raises ProofFailed where the file is not what was meant; the caller throws it away.
    """
    graph = expressible(order.after)
    if path.suffix not in SUFFIXES:
        raise UnsupportedFormat(
            f"{path.name}: a Keras model is written as .keras or .h5, not {path.suffix or 'this'}"
        )
    write = write_keras if path.suffix == ".keras" else write_h5
    write(graph, path, provenance=order.provenance, training=order.training)
    refuse_other(graph, read_literally(path).graph, path.name)
    warnings = tuple(_words(graph, path))
    if not full:
        return Result(Proof(reread=True), warnings)
    result = _judged(order, graph, path)
    return replace(result, warnings=(*warnings, *result.warnings))


def _judged(order: Order, graph: Graph, path: Path) -> Result:
    obstacle = _obstacle(graph)
    if obstacle is not None:
        return Result(Proof(reread=True), (obstacle,))
    return _judge(order, graph, path)


def _words(graph: Graph, path: Path) -> Iterator[str]:
    """What the user of the file must know."""
    operations = [name for name, layer in graph.walk() if is_operation(layer)]
    if path.suffix != ".keras" and operations:
        yield (
            f"{operations[0]} is a keras.ops node: Keras opens this file, but an .h5 that Keras "
            "itself saves from it will not open again (it leaves out the module); save as .keras"
        )


def _obstacle(graph: Graph) -> str | None:
    """Why stock Keras cannot be asked, if so."""
    if not run.is_installed():
        return "Keras is not installed here, so the file was read again but not run"
    reason = foreign_code(graph)
    return None if reason is None else f"{reason}: read again, but not run"


def foreign_code(graph: Graph) -> str | None:
    """A layer that stock Keras cannot load without running someone's code, or None."""
    for path, layer in graph.walk():
        if layer.op == "Lambda":
            return f"{path} is a Lambda, whose code is not run"
        module = str(layer.entry.get("module") or "")
        if layer.body is None and module and not module.startswith("keras"):
            return f"{path} is a custom layer ({layer.op})"
    return None


def refuse_other(graph: Graph, again: Graph, name: str) -> None:
    """ProofFailed unless `again`, read of the file `name`, is `graph`, bit by bit."""
    if _essence(ordered(again)) != _essence(graph):
        raise ProofFailed(f"{name}: read again, its layers are not those that were written")
    meant, found = _arrays(graph), _arrays(again)
    if meant.keys() != found.keys():
        odd = sorted(meant.keys() ^ found.keys())[0]
        raise ProofFailed(f"{name}: read again, {odd} is not where it was written")
    for place, storage in meant.items():
        if not same_bits(storage.load(), found[place].load()):
            raise ProofFailed(f"{name}: read again, {place} holds other numbers")


def _arrays(graph: Graph) -> dict[str, Storage]:
    return {
        f"{path}/{index}": as_seen(view)
        for path, layer in graph.walk()
        for index, view in enumerate(layer.views)
    }


def _essence(graph: Graph) -> Any:
    """The config as a reader understands it: two spellings of one thing are one."""
    return modernise(json.loads(json.dumps(serialise(graph)))).config


def same_bits(one: Array, other: Array) -> bool:
    """True if two arrays hold the same bits, NaN included; compared a block at a time."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.ndim == 0:
        return one.tobytes() == other.tobytes()
    rows = max(1, (1 << 22) * one.shape[0] // max(one.size, 1))
    return all(
        one[start : start + rows].tobytes() == other[start : start + rows].tobytes()
        for start in range(0, one.shape[0], rows)
    )


def _judge(order: Order, graph: Graph, path: Path) -> Result:
    twin, groups = twin_of(order.before, order.after)
    twin_graph = expressible(twin)
    with TemporaryDirectory(prefix="tiesurgeon-twin-") as folder:
        twin_path, modern = Path(folder, "twin.keras"), Path(folder, "modern.keras")
        write_keras(twin_graph, twin_path, provenance={})
        write_keras(expressible(order.before), modern, provenance={})
        found = run.judge(
            path,
            graph,
            original=order.original,
            run_original=order.run_original,
            written_by=run.writer(order.before, order.written_by),
            modern=modern,
            twin=twin_path if groups else None,
            groups=_places(graph, twin_graph, groups),
        )
    return _verdict(order, found)


def _verdict(order: Order, found: Mapping[str, Any]) -> Result:
    if found["values"]:
        raise ProofFailed(f"Keras loaded other numbers into {', '.join(found['values'][:3])}")
    tolerance = _TOLERANCE * max(1.0, found["scale"])
    from_original, from_twin = found.get("from_original"), found.get("from_twin")
    measured = from_original if not order.values_changed else from_twin
    warnings = []
    if measured is None:
        measured = from_twin
    if measured is not None and not measured <= tolerance:
        raise ProofFailed(
            f"Keras gives outputs that differ by {measured:.3g} from those before (at most "
            f"{tolerance:.3g} was expected)"
        )
    for check in ("gradient", "poke", "step", "reload"):
        if found.get(check) is False:
            raise ProofFailed(f"the written model failed the {check} check: it is not tied")
    if "original_error" in found:
        warnings.append(
            "no Keras here opens the original, so outputs were compared with its modern form "
            f"({found['original_error']})"
        )
    if found.get("gradient", True) is None:
        warnings.append(
            "the gradient was not checked: only Keras' TensorFlow backend gives it here"
        )
    elif found.get("step", True) is None:
        warnings.append("no gradient reached the shared matrix on seeded inputs: step not checked")
    step = found.get("step") if found.get("gradient") is not False else False
    proof = Proof(True, measured, found.get("poke"), step)
    return Result(proof, tuple(warnings), tuple(_damage(order, found)))


def _damage(order: Order, found: Mapping[str, Any]) -> list[str]:
    if not order.values_changed or found.get("from_original") is None:
        return []
    moved, agree = found["from_original"], found["agreement"]
    same = "(the proof below compares with an untied twin that holds the same values)"
    seen = f"outputs on seeded inputs moved by up to {moved:.3g}; top entry the same in {agree:.0%}"
    return [f"damage      {seen}", f"            {same}"]


Group = tuple[Variable, list[tuple[Variable, tuple[int, ...] | None]]]


def twin_of(before: Graph, after: Graph) -> tuple[Graph, list[Group]]:
    """The model before the tie with the values after it, and which variables became one.

    Each group is (the variable they became, [(variable in the twin, how it is made from
    the shared one)]).
    """
    new_views = {(path, v.role): v for path, layer in after.walk() for v in layer.views}
    copies: dict[Variable, Variable] = {}
    became: dict[Variable, dict[Variable, tuple[int, ...] | None]] = {}
    for path, layer in before.walk():
        for old in layer.views:
            new = new_views.get((path, old.role))
            if new is None or old.variable in copies:
                continue
            perm = compose(new.perm, inverse(old.perm))
            storage = as_seen(View(old.role, new.variable, perm))
            if new.reshape is not None or old.reshape is not None:
                continue
            copies[old.variable] = replace(old.variable, storage=storage)
            became.setdefault(new.variable, {})[copies[old.variable]] = perm
    twin = map_views(before, lambda v: replace(v, variable=copies.get(v.variable, v.variable)))
    groups = [(shared, list(parts.items())) for shared, parts in became.items() if len(parts) > 1]
    return twin, groups


def _places(
    graph: Graph, twin: Graph, groups: list[Group]
) -> list[tuple[run.Spot, list[run.Spot]]]:
    written, before = run.spots(graph), run.spots(twin)

    def place(copy: Variable, perm: tuple[int, ...] | None) -> run.Spot:
        spot = before[copy][0]  # Keras holds a variable as its layer sees it
        return replace(spot, perm=compose(perm, spot.perm))

    return [
        (written[shared][0], [place(copy, perm) for copy, perm in members])
        for shared, members in groups
    ]
