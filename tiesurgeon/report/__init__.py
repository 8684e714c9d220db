"""An inspection as text, as a page, and as the JSON document that scripts read."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

from tiesurgeon.inspection import Inspection, Inspections
from tiesurgeon.report.data import document

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["as_html", "as_json", "as_text", "document"]

_WIDTH = 80
_WIDEST = 120


def as_json(found: Inspection | Inspections) -> str:
    """One JSON document; of several files `files` and what is equal `between` them."""
    return json.dumps(document(found), indent=2)


def as_text(
    found: Inspection | Inspections, *, width: int | None = None, color: bool | None = None
) -> str:
    """What `inspect` prints, at the terminal's width, coloured on a terminal only."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty() if color is None else color
    measured = Console().width if is_terminal else _WIDTH
    console = Console(
        file=io.StringIO(),
        width=width or min(measured, _WIDEST),
        force_terminal=is_terminal,
        color_system="standard" if is_terminal else None,
        highlight=False,
        legacy_windows=False,
    )
    _print(console, found)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def as_html(found: Inspection | Inspections) -> str:
    """The same as a page that stands alone."""
    from rich.console import Console

    console = Console(file=io.StringIO(), record=True, width=_WIDEST, highlight=False)
    _print(console, found)
    return console.export_html(inline_styles=True)


def _print(console: Console, found: Inspection | Inspections) -> None:
    from tiesurgeon.report.text import print_inspection, print_several

    if isinstance(found, Inspections):
        print_several(console, found)
    else:
        print_inspection(console, found)
