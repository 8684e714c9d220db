"""The order of calls: each after those whose values it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tiesurgeon.graph import Call, Value


def in_order(
    calls: Mapping[str, Call],
    ends: Iterable[str],
    inputs: Callable[[Call], Sequence[Value]] = lambda call: call.inputs,
) -> tuple[Call, ...]:
    """The calls that `ends` need, themselves included, depth first: a branch is done with
    before the next one starts, as a person would write it. `inputs` gives what a call takes,
    in the order in which it is to be computed."""
    ordered: dict[str, Call] = {}
    for end in ends:
        stack = [(end, False)]
        while stack:
            current, is_ready = stack.pop()
            if current in ordered:
                continue
            if is_ready:
                ordered[current] = calls[current]
                continue
            stack.append((current, True))
            stack.extend((value.call, False) for value in reversed(inputs(calls[current])))
    return tuple(ordered.values())
