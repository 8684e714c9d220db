"""The static proof: a file, read again, holds the ties, numbers and signature that were meant."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiesurgeon.errors import ProofFailed
from tiesurgeon.find.values import bits_equal
from tiesurgeon.graph import Array, Graph, Layer, View
from tiesurgeon.orientation import product_matrix
from tiesurgeon.rooms.onnx.document import PROVENANCE, OnnxDocument
from tiesurgeon.rooms.onnx.read import OnnxFile, read
from tiesurgeon.rooms.onnx.write import write_outline

Seen = Mapping[str, tuple[Layer, View]]


def check_written(meant: Graph, document: OnnxDocument, path: Path) -> tuple[str, ...]:
    """ProofFailed unless the file at `path` holds `meant`; returns what has to be said.

    Uses that are tied must lead to one initializer, all weights hold the bits that were
    meant, and inputs, outputs, opsets and metadata are those of the document.
    """
    again = read(path)
    expected = {document.now(name): seen for name, seen in seen_weights(meant).items()}
    found = seen_weights(again.graph)
    if missing := sorted(expected.keys() - found.keys()):
        raise ProofFailed(f"{path.name}: read again, {missing[0]} is not where it was written")
    if _groups(expected) != _groups({name: found[name] for name in expected}):
        odd = sorted(min(_groups(expected) ^ _groups({n: found[n] for n in expected}), key=sorted))
        raise ProofFailed(f"{path.name}: read again, {' and '.join(odd)} are tied otherwise")
    compared: set[object] = set()
    for name, (layer, view) in expected.items():
        now, seen = found[name]
        key = id(view.variable), id(seen.variable), view.perm, seen.perm, layer.op, now.op
        if key not in compared and not bits_equal(upright(layer, view), upright(now, seen)):
            raise ProofFailed(f"{path.name}: read again, {name} holds other numbers")
        compared.add(key)
    _same_signature(document.model, again, path)
    return _accepted(document, again, path)


def refuse_invalid(path: Path) -> None:
    """ProofFailed if ONNX's own checker refuses a file that an exporter wrote."""
    if (refusal := _refusal(read(path).document, path)) is not None:
        raise ProofFailed(f"{path.name}: onnx.checker refuses what was written: {refusal}")


def seen_weights(graph: Graph) -> Seen:
    """Each weight as a node takes it, by the full name of the place."""
    return {
        layer.name_of(view, path): (layer, view)
        for path, layer in graph.walk()
        for view in layer.views
    }


def upright(layer: Layer, view: View) -> Array:
    """A product's matrix as (out, in), whichever way round its node takes it."""
    product = product_matrix(layer)
    array = view.load()
    return array.T if product is not None and product.view is view and product.out_axis else array


def _groups(seen: Seen) -> set[frozenset[str]]:
    """Names that lead to one variable, as sets of at least two."""
    by_variable: dict[int, set[str]] = {}
    for name, (_, view) in seen.items():
        by_variable.setdefault(id(view.variable), set()).add(name)
    return {frozenset(names) for names in by_variable.values() if len(names) > 1}


def _same_signature(model: Any, again: OnnxFile, path: Path) -> None:
    written = again.document.model
    for what in ("opset_import", "ir_version", "functions"):
        if getattr(model, what) != getattr(written, what):
            raise ProofFailed(f"{path.name}: read again, its {what} is another")
    for what in ("name", "input", "output"):
        if getattr(model.graph, what) != getattr(written.graph, what):
            raise ProofFailed(f"{path.name}: read again, the {what} of its graph is another")
    kept, now = (
        {entry.key: entry.value for entry in one.metadata_props if entry.key != PROVENANCE}
        for one in (model, written)
    )
    if kept != now:
        raise ProofFailed(f"{path.name}: read again, its metadata is another")


def _accepted(document: OnnxDocument, again: OnnxFile, path: Path) -> tuple[str, ...]:
    """ONNX's own checker must accept the file, unless it refused the one that was read too."""
    refusal = _refusal(again.document, path)
    if refusal is None:
        return ()
    if _refusal(read(document.path).document, path) is None:
        raise ProofFailed(f"{path.name}: onnx.checker refuses what was written: {refusal}")
    return (f"onnx.checker refuses the file as it refused the one that was read: {refusal}",)


def _refusal(document: OnnxDocument, path: Path) -> str | None:
    """What the checker says of the model without its numbers, which it would hold in memory.

    It looks at a small model beside `path` whose tensors lie in a file of zeros.
    """
    import onnx

    with TemporaryDirectory(prefix=".tiesurgeon-", dir=path.parent) as folder:
        small = Path(folder, path.name)
        write_outline(document.model, document.payloads, small)
        try:
            onnx.checker.check_model(str(small), full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            return " ".join(str(error).split())[:200]
    return None
