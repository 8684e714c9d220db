"""What a verb did: sizes, ties, and how far it was proved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Proof:
    """`None` stands for a check that was not made; a warning says why.

    reread        the file, read again, holds the numbers and ties that it must
    max_abs_diff  the largest difference of outputs, run by the framework itself
    poke          a change of the one variable shows at every use of it
    step          one optimizer step trains the one variable with the gradients of all uses
    """

    reread: bool | None = None
    max_abs_diff: float | None = None
    poke: bool | None = None
    step: bool | None = None


@dataclass(frozen=True)
class Result:
    """How the writing of one file went."""

    proof: Proof
    warnings: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class MadeTie:
    """`target` now is `source`, transposed by `perm` (None: as it is)."""

    source: str
    target: str
    perm: tuple[int, ...] | None
    kind: str = "tie"


@dataclass(frozen=True)
class Outcome:
    """The result of `tie`, `untie` or `convert`.

    `ties` are those that were made, or that a converted or untied output still has; `untied`
    are the names that got weights of their own. `lines` are for people, `warnings` for everybody.
    """

    input: Path
    output: Path | None
    format: str
    ties: tuple[MadeTie, ...]
    parameters: tuple[int, int]
    bytes: tuple[int, int]
    proof: Proof
    warnings: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    untied: tuple[str, ...] = ()
