"""Python text as `ruff format` would leave it, at a line length of 100."""

from __future__ import annotations

from typing import Any

from tiesurgeon.mapping.torch_words import Name

WIDTH = 100
_OPENING, _CLOSING = "([{", ")]}"


def literal(value: Any) -> str:
    """A constant as source text."""
    if isinstance(value, Name):
        return value.text.removeprefix("parts.")
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, (list, tuple)):
        items = ", ".join(literal(item) for item in value)
        if isinstance(value, list):
            return f"[{items}]"
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, slice):
        return slice_text(*(None if v is None else literal(v) for v in _bounds(value)))
    return "..." if value is ... else repr(value)


def slice_text(start: str | None, stop: str | None, step: str | None) -> str:
    """`start:stop:step`, left out where None."""
    text = f"{start or ''}:{stop or ''}"
    return f"{text}:{step}" if step is not None else text


def fit(line: str, indent: int) -> list[str]:
    """The statement as lines, indented, broken where it is too long."""
    prefix = " " * indent
    if len(prefix) + len(line) <= WIDTH:
        return [prefix + line]
    code, comment = _without_comment(line)
    opening = code.index("(") if code.startswith("def ") else _last_bracket(code)
    if opening is None:
        return [prefix + line]
    closing = _matching(code, opening)
    head, body, tail = code[: opening + 1], code[opening + 1 : closing], code[closing:]
    if code.startswith("def ") and len(_split(body)) == 1:
        body += ","  # as ruff has it for the only parameter of a function
    inner = " " * (indent + 4)
    if len(inner) + len(body) <= WIDTH:
        middle = [inner + body]
    else:
        middle = [piece for item in _split(body) for piece in _with_comma(fit(item, indent + 4))]
    return [prefix + head, *middle, prefix + tail + comment]


def _with_comma(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1] + ","]


def _bounds(value: slice) -> tuple[Any, Any, Any]:
    return value.start, value.stop, value.step


def _number(value: float) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return f'float("{value}")'
    return repr(value)


def _without_comment(line: str) -> tuple[str, str]:
    code, mark, comment = line.partition("  # ")
    return code, mark + comment


def _last_bracket(code: str) -> int | None:
    """Where the last bracket pair of the outermost level opens, if it has content."""
    depth, found = 0, None
    quoted = False
    for index, char in enumerate(code):
        if char == '"':
            quoted = not quoted
        elif not quoted and char in _OPENING:
            if depth == 0 and code[index + 1] not in _CLOSING:
                found = index
            depth += 1
        elif not quoted and char in _CLOSING:
            depth -= 1
    return found


def _matching(code: str, opening: int) -> int:
    depth, quoted = 0, False
    for index in range(opening, len(code)):
        char = code[index]
        if char == '"':
            quoted = not quoted
        elif not quoted and char in _OPENING:
            depth += 1
        elif not quoted and char in _CLOSING:
            depth -= 1
            if depth == 0:
                return index
    raise ValueError(f"unbalanced brackets: {code}")


def _split(body: str) -> list[str]:
    """The items between the outermost commas."""
    items, depth, start, quoted = [], 0, 0, False
    for index, char in enumerate(body):
        if char == '"':
            quoted = not quoted
        elif not quoted and char in _OPENING:
            depth += 1
        elif not quoted and char in _CLOSING:
            depth -= 1
        elif not quoted and char == "," and depth == 0:
            items.append(body[start:index].strip())
            start = index + 1
    items.append(body[start:].strip())
    return [item for item in items if item]
