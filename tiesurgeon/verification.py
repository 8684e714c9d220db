"""`verify`: what two models, in whatever formats, make of the same inputs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tiesurgeon import examples, formats
from tiesurgeon.comparison import Difference, compare
from tiesurgeon.errors import CannotRun, ShapeMismatch, TiesurgeonError, UnsupportedFormat
from tiesurgeon.graph import Array, Shape
from tiesurgeon.rooms.pytorch.check import tensors
from tiesurgeon.running import Ran, Runnable, Wanted, Weights

ATOL = 1e-4


@dataclass(frozen=True)
class Input:
    """One array that both models were called on, by the name that the first one has for it."""

    name: str
    shape: Shape
    dtype: str


@dataclass(frozen=True)
class Verification:
    """How far two models are apart.

    `compared` tells what `differences` are of: the outputs of models, or, where both files
    are weights alone, the tensors of one name. `equal`: all are at most `atol` apart, and none
    is missing from one of the files. `source` says where the inputs are from.
    """

    a: Path
    b: Path
    formats: tuple[str, str]
    compared: Literal["outputs", "weights"]
    inputs: tuple[Input, ...]
    source: str
    differences: tuple[Difference, ...]
    atol: float
    missing: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def worst(self) -> Difference:
        """The pair that is farthest apart, in absolute numbers."""
        return max(self.differences, key=lambda one: one.max_abs_diff)

    @property
    def max_abs_diff(self) -> float:
        """The largest absolute difference of all; infinite where only one side is a number."""
        return self.worst.max_abs_diff

    @property
    def equal(self) -> bool:
        """True if nothing is farther apart than `atol`, and nothing missing."""
        return not self.missing and self.max_abs_diff <= self.atol


def verify(
    a: Path | str,
    b: Path | str,
    *,
    inputs: Path | str | None = None,
    atol: float = ATOL,
    trust_code: bool = False,
) -> Verification:
    """Runs two models of any format on the same inputs, each in a process of its own.

    `inputs` is an `.npz`, matched by name where the names agree, else by place and shape;
    without it inputs are made from what the files say, with a seed. `trust_code` lets PyTorch
    import the classes that a file names. Two files of weights alone are compared tensor by
    tensor. Raises a TiesurgeonError where a model cannot be run or they cannot be compared.
    """
    one, other = (_opened(Path(path), trust_code) for path in (a, b))
    if isinstance(one, Weights) and isinstance(other, Weights):
        return _of_weights(one, other, atol)
    for found in (one, other):
        if isinstance(found, Weights):
            raise UnsupportedFormat(
                f"{found.path} holds weights alone ({found.format}), which cannot be run beside a "
                f"model; {found.cure}"
            )
    assert not isinstance(one, Weights)
    assert not isinstance(other, Weights)
    ran, source = _ran(one, other, None if inputs is None else _loaded(Path(inputs)))
    pairs, words = _paired(ran[0], ran[1])
    found_apart = tuple(compare(*pair) for pair in pairs)
    return Verification(
        one.path,
        other.path,
        (one.format, other.format),
        "outputs",
        tuple(Input(name, x.shape, x.dtype.name) for name, x in ran[0].inputs.items()),
        source,
        found_apart,
        atol,
        warnings=(*ran[0].warnings, *ran[1].warnings, *words, *_unusual(found_apart)),
    )


def _opened(path: Path, trust_code: bool) -> Runnable | Weights:
    names = ("model.py", "model.safetensors")
    if all((path / name).is_file() for name in names) and not (path / "config.json").exists():
        from tiesurgeon.rooms.pytorch.running import open_folder

        return open_folder(path, trust_code=trust_code)
    kind = formats.recognise(path)
    room: Any = importlib.import_module(f"tiesurgeon.rooms.{kind.room}.running")
    opened: Runnable | Weights = room.open_runnable(path, kind.name, trust_code=trust_code)
    return opened


# --- the same inputs for both -----------------------------------------------------------------


def _loaded(path: Path) -> dict[str, Array]:
    try:
        with np.load(path) as arrays:  # never a pickle
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise CannotRun(f"{path}: there is no such file") from None
    except Exception:  # numpy, zipfile and zlib have many words for damage
        raise CannotRun(
            f"{path}: --inputs takes an .npz file of plain arrays (numpy.savez), which this is not"
        ) from None


def _ran(
    one: Runnable, other: Runnable, given: Mapping[str, Array] | None
) -> tuple[tuple[Ran, Ran], str]:
    """Both on the same inputs, and where these are from."""
    if given is not None:
        return _both(one, other, given, frozenset()), "given"
    wanted = _wanted(one, other)
    if wanted is None:
        first = one.run(None, frozenset())
        second = _run(other, first.inputs, frozenset())
        return (first, second), first.words
    ids = frozenset(one.name for one in wanted if one.below is not None)
    failure: TiesurgeonError | None = None
    for arrays in examples.made(wanted):
        try:
            return _both(one, other, arrays, ids), "made with seed 0"
        except CannotRun as error:
            failure = failure or error
    raise CannotRun(f"{failure}; give --inputs F.npz if it is for the inputs that were made")


def _wanted(one: Runnable, other: Runnable) -> tuple[Wanted, ...] | None:
    if one.wanted is not None and other.wanted is not None:
        return examples.joined(one.wanted, other.wanted)
    return one.wanted if one.wanted is not None else other.wanted


def _both(
    one: Runnable, other: Runnable, arrays: Mapping[str, Array], ids: frozenset[str]
) -> tuple[Ran, Ran]:
    return _run(one, arrays, ids), _run(other, arrays, ids)


def _run(model: Runnable, arrays: Mapping[str, Array], ids: frozenset[str]) -> Ran:
    if model.wanted is None:
        return model.run(arrays, ids)
    try:
        return model.run(examples.routed(model.wanted, arrays), ids)
    except ShapeMismatch as error:
        raise ShapeMismatch(f"{model.path}: {error}") from None


# --- outputs ----------------------------------------------------------------------------------

Pair = tuple[str, Array, Array]


def _paired(one: Ran, other: Ran) -> tuple[list[Pair], list[str]]:
    """Outputs that belong together: by name if the names agree, else by place."""
    mine, theirs = dict(one.outputs), dict(other.outputs)
    shared = [name for name in mine if name and name in theirs]
    if len(shared) < min(len(one.outputs), len(other.outputs)):
        if len(one.outputs) != len(other.outputs):
            raise ShapeMismatch(
                f"the first gives {_listed(one)} and the second {_listed(other)}: it cannot be "
                "told which belong together"
            )
        return _by_place(one, other)
    if not shared:
        raise CannotRun("neither model gives an output that is an array of numbers")
    alone = [name for name in (*mine, *theirs) if name not in shared]
    words = [f"not compared, as only one of them gives it: {', '.join(alone)}"] if alone else []
    return [(name, mine[name], theirs[name]) for name in shared], words


def _by_place(one: Ran, other: Ran) -> tuple[list[Pair], list[str]]:
    """Each output with the first one left that has its shape, or else with the first one left.

    Says so where names contradict or the order changes: of outputs of one shape, names in two
    languages cannot tell which is which.
    """
    left, pairs, matched, is_plain = list(enumerate(other.outputs)), list[Pair](), [], True
    for number, (mine, x) in enumerate(one.outputs):
        place = next((n for n, (_, (_, y)) in enumerate(left) if y.shape == x.shape), 0)
        index, (theirs, y) = left.pop(place)
        is_plain = is_plain and not place and not (mine and theirs)
        pairs.append((mine or theirs or str(number), x, y))
        matched.append(f"{mine or number} with {theirs or index}")
    if is_plain or len(pairs) == 1:
        return pairs, []
    return pairs, [f"their names differ, so outputs were matched by shape: {', '.join(matched)}"]


def _listed(ran: Ran) -> str:
    return ", ".join(f"{name or 'an output'} {y.shape}" for name, y in ran.outputs) or "nothing"


def _unusual(differences: Sequence[Difference]) -> Iterator[str]:
    for one in differences:
        if one.unusual:
            size = int(np.prod(one.shape))
            yield f"{one.name} is NaN or infinite in {one.unusual} of {size} places in the first"


# --- weights alone ----------------------------------------------------------------------------


def _of_weights(one: Weights, other: Weights, atol: float) -> Verification:
    mine, theirs = tensors(one.graph), tensors(other.graph)
    shared = [name for name in mine if name in theirs]
    if not shared:
        raise ShapeMismatch(
            f"{one.path} and {other.path} have no weight of the same name, so nothing can be "
            "compared; convert one to the format of the other first"
        )
    missing, words = (
        [],
        ["both hold weights without a model: tensors were compared by name, nothing was run"],
    )
    for here, there, lacking in ((mine, theirs, other), (theirs, mine, one)):
        known = {id(here[name].variable.storage) for name in shared}
        for name in here:
            if name in there:
                continue
            if id(here[name].variable.storage) in known:
                words.append(f"{name} is a second name, which {lacking.path} does not have")
            else:
                missing.append(f"{name} is not in {lacking.path}")
    return Verification(
        one.path,
        other.path,
        (one.format, other.format),
        "weights",
        (),
        "",
        tuple(compare(name, mine[name].load(), theirs[name].load()) for name in shared),
        atol,
        tuple(missing),
        tuple(words),
    )
