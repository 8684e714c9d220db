"""The full proof: stock PyTorch, in a fresh process without tiesurgeon, judges what was written.

The original, *tied by hand* in Python, says what the written file must be: the same outputs,
the same after a poke, the same numbers after five Adam steps. A file of weights alone has
nothing to call; it must load, and hold what is tied once.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiesurgeon.edits import Perm, compose, inverse
from tiesurgeon.errors import ProofFailed
from tiesurgeon.formats import WEIGHTS_ONLY
from tiesurgeon.graph import Graph, View
from tiesurgeon.model import Change, Permissions
from tiesurgeon.outcome import Proof, Result
from tiesurgeon.rooms.pytorch.check import tensors
from tiesurgeon.rooms.pytorch.document import TorchFile
from tiesurgeon.subprocesses import ask

SCRIPT = Path(__file__).parent / "stock" / "script.py"
_SAME = 1e-6

Tie = tuple[str, str, Perm | None]


def is_installed(package: str = "torch") -> bool:
    """True if it can be imported here (it is not imported to find out)."""
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:  # something on the path forbids it
        return False


@dataclass(frozen=True)
class Subject:
    """A file or folder, the name of its format, and the classes that opening it runs."""

    path: Path
    format: str
    classes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For the script."""
        return {"path": str(self.path.resolve()), "format": self.format}


def judge_change(
    found: TorchFile, original: Path, written: Path, change: Change, permissions: Permissions
) -> Result:
    """The proof of what `tie` or `untie` wrote in the format that it had read."""
    return judge(
        Subject(written, found.format, found.classes),
        Subject(original, found.format, found.classes),
        ties(change.after, by_storage=found.format in WEIGHTS_ONLY),
        apart=untied(change.before, change.after),
        values_changed=change.values_changed,
        trust_code=permissions.trust_code,
        example_inputs=permissions.example_inputs,
    )


def judge(
    written: Subject,
    original: Subject,
    ties: Sequence[Tie],
    *,
    apart: Sequence[tuple[str, str]] = (),
    values_changed: bool = False,
    trust_code: bool = False,
    example_inputs: Path | None = None,
) -> Result:
    """Compares a written file with its original, tied by hand.

    `ties` are (source, target, perm) of all that must be one, `apart` pairs of names that
    must not be any more. With `values_changed` the ties gave the sources other numbers.
    Raises ProofFailed where a check fails; one that cannot be made is None, with a warning.
    """
    if reason := _why_not(written, trust_code):
        return Result(Proof(reread=True), (f"{reason}: read again, but not run",))
    order = {
        "job": "bare" if written.format in WEIGHTS_ONLY else "prove",
        "written": written.as_json(),
        "original": original.as_json(),
        "ties": [[source, target, perm] for source, target, perm in ties],
        "apart": [list(pair) for pair in apart],
        "values_changed": values_changed,
        "trusted": trust_code,
        "folders": code_folders(original.path) if trust_code else [],
        "example_inputs": None if example_inputs is None else str(example_inputs.resolve()),
    }
    with TemporaryDirectory(prefix="tiesurgeon-proof-") as folder:
        return _verdict(order, ask(SCRIPT, order, Path(folder)))


def judge_weights(graph: Graph, written: Path) -> Result:
    """The proof of a file of weights alone that a conversion wrote of a graph."""
    kind = "safetensors" if written.suffix == ".safetensors" else "torch-state-dict"
    subject = Subject(written, kind)
    return judge(subject, subject, ties(graph, by_storage=True))


def ties(graph: Graph, *, by_storage: bool = False) -> list[Tie]:
    """Names that see one variable: the one it is named after is the source, if it has one.

    `by_storage`: names that see one storage, which is all that weights without a model can say.
    """
    seen: dict[int, list[tuple[str, View]]] = {}
    for name, view in tensors(graph).items():
        holder = view.variable.storage if by_storage else view.variable
        seen.setdefault(id(holder), []).append((name, view))
    found: list[Tie] = []
    for places in seen.values():
        owner, own = min(places, key=_is_named_otherwise)
        found += [
            (owner, name, compose(inverse(own.perm), view.perm))
            for name, view in places
            if name != owner
        ]
    return found


def _is_named_otherwise(place: tuple[str, View]) -> tuple[bool, bool]:
    """Orders names by whether the file or the graph names what they share after them."""
    name, view = place
    return name != view.variable.storage.key, name != view.variable.name


def untied(before: Graph, after: Graph) -> list[tuple[str, str]]:
    """Pairs that shared a storage and do not any more."""
    old, new = tensors(before), tensors(after)
    first: dict[int, str] = {}
    pairs = []
    for name, view in old.items():
        other = first.setdefault(id(view.variable.storage), name)
        if other == name or name not in new or other not in new:
            continue
        if new[name].variable.storage is not new[other].variable.storage:
            pairs.append((other, name))
    return pairs


def _why_not(written: Subject, trust_code: bool) -> str | None:
    if not is_installed():
        return "PyTorch is not installed here"
    if written.format == "huggingface" and not is_installed("transformers"):
        return "transformers is not installed here"
    if written.classes and not trust_code and written.format not in WEIGHTS_ONLY:
        return f"opening it needs the class {written.classes[0]}; give --trust-code"
    return None


def code_folders(model: Path) -> list[str]:
    """Where the user's own Python would look for the classes of a file."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [model.resolve().parent, Path.cwd(), *(Path(path) for path in given if path)]
    return [str(folder.resolve()) for folder in folders]


def _verdict(order: Mapping[str, Any], found: Mapping[str, Any]) -> Result:
    if "failed" in found:
        raise ProofFailed(f"{found['failed']}; nothing was kept")
    if "unopened" in found:
        reason = f"PyTorch cannot open it here ({found['unopened']})"
        return Result(Proof(reread=True), (f"{reason}: read again, but not run",))
    if "uncalled_on_given" in found:
        raise ProofFailed(
            f"the model does not run on {order['example_inputs']}: {found['uncalled_on_given']}"
        )
    measured = found.get("max_abs_diff")
    if measured is not None and not order["values_changed"]:
        measured = max(measured, found["from_original"])
    if measured is not None and not measured <= found["tolerance"]:
        raise ProofFailed(
            f"PyTorch gives outputs that differ by {measured:.3g} from those before (at most "
            f"{found['tolerance']:.3g} was expected)"
        )
    if found.get("poke") is False:
        raise ProofFailed("the written model failed the poke check: its ties do not hold")
    apart = found.get("step_difference")
    if apart is not None and not apart <= _SAME:
        raise ProofFailed(
            f"after five Adam steps it is {apart:.3g} away from a model tied by hand (at most "
            f"{_SAME:.0e} was expected): it is not tied"
        )
    step = True if apart is not None and "untrained" not in found else None
    proof = Proof(True, measured, found.get("poke"), step)
    return Result(proof, tuple(_warnings(order, found)), tuple(_lines(order, found)))


def _warnings(order: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    words = list(found.get("words", ()))
    if "uncalled" in found:
        words.append(f"outputs were not compared: {found['uncalled']}")
    if "untrained" in found:
        words.append(f"no step was taken: {found['untrained']}")
    if order["job"] == "bare":
        reason = "your class makes the ties, so" if order["ties"] else "they were loaded, and"
        words.append(f"weights without a model: {reason} nothing was run or trained")
    return words


def _lines(order: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    lines = []
    if order["values_changed"] and found.get("from_original") is not None:
        moved, agree = found["from_original"], found["agreement"]
        same = "" if agree is None else f"; top entry the same in {agree:.0%}"
        lines.append(f"damage      outputs moved by up to {moved:.3g}{same}")
    if "inputs" in found:
        lines.append(f"inputs      {found['inputs']}")
    if "step_difference" in found and "untrained" not in found:
        difference = found["step_difference"]
        lines.append(
            f"step        five Adam steps end {difference:.3g} away from a model tied by hand"
        )
    return lines
