"""The full proof of an ONNX file: run by ONNX Runtime in a fresh process, and poked there."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tiesurgeon.errors import ProofFailed
from tiesurgeon.graph import Array, Graph, View
from tiesurgeon.model import Change
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.onnx.check import seen_weights
from tiesurgeon.rooms.onnx.document import OnnxDocument
from tiesurgeon.rooms.onnx.quantised import QuantisedStorage
from tiesurgeon.rooms.onnx.read import read
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).with_name("proof_script.py")
_TOLERANCE, _HALF_TOLERANCE = 1e-5, 1e-2
# ONNX Runtime takes these as numpy arrays.
_TAKEN = frozenset({"float16", "float32", "float64"})


def is_installed() -> bool:
    """True if ONNX Runtime can be imported here (it is not imported to find out)."""
    try:
        return importlib.util.find_spec("onnxruntime") is not None
    except ImportError:  # something on the path forbids it
        return False


def judge_change(
    original: Path, path: Path, change: Change, document: OnnxDocument, examples: Path | None
) -> Result:
    """Runs both files on the same inputs, as they are and with the tied matrix changed.

    Where the tie changed values, the original runs with the new ones in both places. Raises
    ProofFailed where outputs differ, or a change of the matrix does not show at both ends.
    """
    if not is_installed():
        word = "onnxruntime is not installed here, so the file was read again but not run"
        return Result(Proof(reread=True), (word,))
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as place:
        folder = Path(place)
        pokes = list(_pokes(original, path, change, document, folder))
        spec = {
            "original": str(original.resolve()),
            "written": str(path.resolve()),
            "examples": str(examples.resolve()) if examples is not None else None,
            "rows": _fewest_rows(change.before),
            "twin": _twin(original, change, folder),
            # Fused quantised products round otherwise, and which are fused is up to the runtime.
            "optimised": not any(True for _ in document.index.quantised()),
            "pokes": [poke for poke in pokes if isinstance(poke, dict)],
        }
        found = ask(SCRIPT, spec, folder)
    words = [poke for poke in pokes if isinstance(poke, str)]
    return _verdict(change, found, words)


def _verdict(change: Change, found: Mapping[str, Any], words: list[str]) -> Result:
    if "no_inputs" in found:
        word = f"no inputs were found on which the model runs ({found['no_inputs']}); give "
        return Result(Proof(reread=True), (f"{word}--example-inputs, or compare it yourself",))
    tolerance = _HALF_TOLERANCE if found["is_half"] else _TOLERANCE
    tolerance *= max(1.0, found["scale"])
    if not found["difference"] <= tolerance:
        raise ProofFailed(
            f"ONNX Runtime gives outputs that differ by {found['difference']:.3g} from those "
            f"before (at most {tolerance:.3g} was expected)"
        )
    poked: bool | None = None
    for poke in found["pokes"]:
        if not poke["difference"] <= tolerance * max(1.0, poke["scale"]):
            raise ProofFailed("a change of the one matrix does not show at both of its uses")
        if not poke["shows"]:
            words.append("on the inputs that were made, one end of the tie shows in no output")
        else:
            poked = True
    if change.steps:
        words.append("an ONNX file is not trained, so no optimizer step was taken")
    proof = Proof(True, found["difference"], poked, None)
    return Result(proof, tuple(words), tuple(_damage(change, found)))


def _damage(change: Change, found: Mapping[str, Any]) -> Iterator[str]:
    if change.values_changed:
        seen = f"outputs on seeded inputs moved by up to {found['moved']:.3g}"
        yield f"damage      {seen}; top entry the same in {found['agreement']:.0%}"
        yield "            (the proof below compares with the untied model holding the same values)"


def _fewest_rows(graph: Graph) -> int:
    """Ids below this are in every table."""
    rows = [
        view.shape[0]
        for _, layer in graph.walk()
        for view in layer.views
        if layer.op.startswith("Gather") and view.role == "data" and len(view.shape) == 2
    ]
    return min(rows, default=2)


# --- other numbers in the place of initializers -----------------------------------------------


def _twin(original: Path, change: Change, folder: Path) -> dict[str, str]:
    """Initializers of the original as they are after the tie, where that changed them."""
    if not change.values_changed:
        return {}
    uses = read(original).document.index.uses
    after = seen_weights(change.after)
    replaced: dict[str, str] = {}
    for number, (name, (_, view)) in enumerate(seen_weights(change.before).items()):
        now = after[name][1]
        if view.variable is not now.variable and name in uses:
            array = _as_stored(now.load(), view)
            replaced[uses[name].held.name] = _saved(array, folder / f"twin_{number}.npy")
    return replaced


def _pokes(
    original: Path, path: Path, change: Change, document: OnnxDocument, folder: Path
) -> Iterator[dict[str, Any] | str]:
    """For each matrix that was shared: it changed in what was written, and every one that it
    came from changed in the original, all of them and each alone."""
    uses, written = read(original).document.index.uses, read(path).document.index.uses
    before, after = seen_weights(change.before), seen_weights(change.after)
    shared = {id(after[step.source][1].variable): step.source for step in change.steps}
    for number, source in enumerate(shared.values()):
        variable = after[source][1].variable
        members = [name for name in before if after[name][1].variable is variable]
        use = written[document.now(source)]
        taken = [uses[name] for name in members]
        why = next(filter(None, map(_not_replaceable, (*taken, use))), None)
        if why is not None:
            yield f"{source} and what is tied to it were not poked: {why}"
            continue
        poked = _poked(variable.storage.load(), number)
        new = _as_stored(_seen(poked, after[source][1]), use)
        ends = {}
        for place, (name, one) in enumerate(zip(members, taken, strict=True)):
            array = _as_stored(_seen(poked, after[name][1]), one)
            ends[one.held.name] = _saved(array, folder / f"end_{number}_{place}.npy")
        yield {
            "written": {use.held.name: _saved(new, folder / f"shared_{number}.npy")},
            "all": ends,
            "each": [{name: file} for name, file in ends.items()],
        }


def _seen(array: Array, view: View) -> Array:
    return array if view.perm is None else array.transpose(view.perm)


def _poked(array: Array, seed: int) -> Array:
    """Every row by a factor of its own, between a half and three halves."""
    factors = np.random.default_rng(seed).random(len(array)) + 0.5
    by_row = factors.astype(array.dtype).reshape(-1, *(1,) * (array.ndim - 1))
    return np.asarray(array * by_row)


def _not_replaceable(use: Any) -> str | None:
    storage = use.held.variable.storage
    if isinstance(storage, QuantisedStorage):
        return "it is quantised"
    if storage.dtype.name not in _TAKEN:
        return f"ONNX Runtime takes no {storage.dtype.name} from outside"
    is_main = hasattr(use.held.owner, "initializer") and use.held.owner is _main(use.scope)
    return None if is_main else f"{use.held.name} is no initializer of the main graph"


def _main(scope: Any) -> Any:
    while scope.outer is not None:
        scope = scope.outer
    return scope.graph


def _as_stored(array: Array, seen: Any) -> Array:
    perm = seen.perm if isinstance(seen, View) else seen.held.perm
    if perm is not None:
        array = array.transpose([perm.index(axis) for axis in range(len(perm))])
    return np.ascontiguousarray(array)


def _saved(array: Array, path: Path) -> str:
    np.save(path, array)
    return str(path)
