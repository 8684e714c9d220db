"""Writes a Keras graph as a SavedModel and proves it, before anybody sees it.

The graph is written and proved as a `.keras` file first. TensorFlow makes the SavedModel of
that, which is read again, and run and trained beside it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiesurgeon import find
from tiesurgeon.errors import ProofFailed, UnsupportedFormat
from tiesurgeon.graph import Graph
from tiesurgeon.names import resolve
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.keras import surgery
from tiesurgeon.rooms.keras.read import read_literally, understood
from tiesurgeon.rooms.keras.write import KERAS_VERSION
from tiesurgeon.rooms.savedmodel import extra, read, run
from tiesurgeon.rooms.savedmodel.bundle import read_bundle

_TOLERANCE = 1e-5


def produce(order: surgery.Order, folder: Path, *, full: bool) -> Result:
    """Writes `order.after` into an empty folder and proves it.

    Raises MissingFramework without TensorFlow and Keras, which write it; UnsupportedFormat for
    layers whose code is not run; ProofFailed where the result is not what was meant.
    """
    run.refuse_missing()
    graph = surgery.expressible(order.after)
    if (reason := surgery.foreign_code(graph)) is not None:
        raise UnsupportedFormat(
            f"{reason}, and TensorFlow writes only what it has run; write .keras instead"
        )
    with TemporaryDirectory(prefix="tiesurgeon-savedmodel-") as place:
        model = Path(place, "model.keras")
        result = surgery.produce(order, model, full=full)
        write_savedmodel(model, folder, order.provenance)
        reread(model, folder)
        if not full:
            return result
        proof = judge(folder, model)
    return replace(result, proof=_joined(result.proof, proof))


def _joined(first: Proof, second: Proof) -> Proof:
    """Of both stages; differences add up at most."""
    if first.max_abs_diff is None or second.max_abs_diff is None:
        return replace(second, max_abs_diff=None)
    return replace(second, max_abs_diff=first.max_abs_diff + second.max_abs_diff)


def write_savedmodel(keras_file: Path, folder: Path, provenance: Mapping[str, Any]) -> None:
    """Writes the SavedModel of a `.keras` file that stock Keras opens, its config inside.

    Each variable is written once. `loaded.serve`, `.variables` and `.trainable_variables` are as
    Keras' own export has them; `loaded.weights` holds the variables by name.
    """
    found = read_literally(keras_file)
    names = extra.weight_names(found.graph)
    run.export(keras_file, folder, names)
    with zipfile.ZipFile(keras_file) as archive:
        config = archive.read("config.json")
    metadata = {"keras_version": KERAS_VERSION, "weights": names, "tiesurgeon": dict(provenance)}
    (folder / extra.CONFIG).parent.mkdir(parents=True)
    (folder / extra.CONFIG).write_bytes(config)
    (folder / extra.METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def reread(keras_file: Path, folder: Path) -> None:
    """ProofFailed unless the SavedModel holds the model of the file, and each variable once."""
    graph = read_literally(keras_file).graph
    surgery.refuse_other(graph, read.read_literally(folder).graph, folder.name)
    bundle = read_bundle(folder / "variables" / "variables.index")
    keys = [key for key in bundle.entries if bundle.storage(key) is not None]
    held = [key for key in keys if not key.startswith(extra.RESOURCES)]
    expected = len(graph.variables())
    if len(held) != expected:
        raise ProofFailed(f"{folder.name}: {expected} variables were written as {len(held)}")


def judge(folder: Path, keras_file: Path) -> Proof:
    """TensorFlow, in a fresh process, runs, pokes and trains both; ProofFailed if they differ.

    `max_abs_diff` is that of the SavedModel's outputs from those of the `.keras` file.
    """
    found = read_literally(keras_file)
    tied = _tied(understood(found).graph, found.graph)
    names = extra.weight_names(found.graph)
    told = run.judge(folder, keras_file, found.graph, names, tied)
    tolerance = _TOLERANCE * max(1.0, told["scale"])
    if not told["difference"] <= tolerance:
        raise ProofFailed(
            f"the SavedModel gives outputs that differ by {told['difference']:.3g} from Keras' (at "
            f"most {tolerance:.3g} was expected)"
        )
    for check in ("listed", "poke", "step", "reload"):
        if told[check] is False:
            raise ProofFailed(f"the SavedModel failed the {check} check")
    return Proof(True, told["difference"], told["poke"], told["step"])


def _tied(graph: Graph, literal: Graph) -> list[str]:
    """Variables of several uses, under the names that they have in the SavedModel."""
    shared = set()
    for tie in find.ties(graph):
        view = resolve(graph, tie.source).view
        if view is not None:
            shared.add(view.variable.storage)
    return [v.name for v in literal.variables() if v.storage in shared]
