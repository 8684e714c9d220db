"""What `tie`, `untie` and `convert` did, as text and as the JSON document that scripts read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tiesurgeon.formats import WEIGHTS_ONLY
from tiesurgeon.outcome import Outcome

SCHEMA = 1
_WEIGHTS_ONLY = WEIGHTS_ONLY | {"state-dict"}  # `convert --to` has a word of its own for it


def as_json(outcome: Outcome) -> str:
    """One JSON document; paths as they were given, null for what was not done."""
    proof = outcome.proof
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "input": str(outcome.input),
        "output": None if outcome.output is None else str(outcome.output),
        "format": outcome.format,
        "ties": [
            {
                "source": tie.source,
                "target": tie.target,
                "perm": None if tie.perm is None else list(tie.perm),
                "kind": tie.kind,
            }
            for tie in outcome.ties
        ],
        "parameters": dict(zip(("before", "after"), outcome.parameters, strict=True)),
        "bytes": dict(zip(("before", "after"), outcome.bytes, strict=True)),
        "proof": {
            "reread": proof.reread,
            "max_abs_diff": proof.max_abs_diff,
            "poke": proof.poke,
            "step": proof.step,
        },
        "warnings": list(outcome.warnings),
    }
    if outcome.untied:
        document["untied"] = list(outcome.untied)
    return json.dumps(document, indent=2)


def as_text(outcome: Outcome) -> str:
    """A few lines: the ties, the sizes, where it was written, and what was proved."""
    return "\n".join(_lines(outcome))


def _lines(outcome: Outcome) -> Iterator[str]:
    for tie in outcome.ties:
        transposed = "" if tie.perm is None else "  (transposed)"
        if tie.kind == "alias":
            yield f"stored once {tie.target} and {tie.source}{transposed}"
        else:
            yield f"tie         {tie.target} <- {tie.source}{transposed}"
    for name in outcome.untied:
        yield f"untied      {name}"
    yield from outcome.lines
    if outcome.output is None:
        yield "no file was written"
    yield f"parameters  {_change(*outcome.parameters)}"
    yield f"bytes       {_change(*outcome.bytes)}"
    if outcome.output is not None:
        yield from _proof_lines(outcome)
        yield f"wrote       {outcome.output}"


def _change(before: int, after: int) -> str:
    if before == after:
        return f"{before:,}"
    return f"{before:,} -> {after:,}  ({(after - before) / max(before, 1):+.1%})"


def _proof_lines(outcome: Outcome) -> Iterator[str]:
    proof, tied = outcome.proof, bool(outcome.ties) and not outcome.untied
    reread = "each tie is one variable" if tied else "all weights are as they should be"
    if tied and outcome.format in _WEIGHTS_ONLY:
        reread = "what is tied is stored once"
    if outcome.untied:
        reread = "each of these names has weights of its own"
    apart = proof.max_abs_diff
    checks = [
        ("read back", proof.reread, reread),
        ("outputs", apart is not None, f"largest difference {apart or 0.0:.2g}"),
    ]
    if tied:  # without a tie there is nothing to poke or to train: no gap in the proof
        checks += [
            ("poke", proof.poke, "one changed row of the matrix shows at both ends"),
            ("step", proof.step, "one training step moves both ends together"),
        ]
    for name, made, meaning in checks:
        if made:
            yield f"proof       {name}: {meaning}"
    if missing := [name for name, made, _ in checks if not made]:
        yield f"not proved  {', '.join(missing)}"
