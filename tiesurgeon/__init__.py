"""Find weights that are or could be one, tie them for real, and keep the tie across formats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["__version__", "convert", "inspect", "tie", "untie", "verify"]

if TYPE_CHECKING:
    from tiesurgeon.inspection import inspect
    from tiesurgeon.operations import convert, tie, untie
    from tiesurgeon.verification import verify

_HOMES = {
    "inspect": "tiesurgeon.inspection",
    "tie": "tiesurgeon.operations",
    "untie": "tiesurgeon.operations",
    "convert": "tiesurgeon.operations",
    "verify": "tiesurgeon.verification",
}


def __getattr__(name: str) -> Any:
    # numpy and h5py are loaded when a function is first asked for, so `--help` does without.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
